// The document kinds of the world. A new kind is a file beside this one and a line here; nothing else names a kind.
import { chat } from "./chat.js";
import { exam } from "./exam.js";
import { lesson } from "./lesson.js";
import { log } from "./log.js";
import { rhyme } from "./rhyme.js";
import { story } from "./story.js";
import type { DocumentKind } from "../kind.js";

/** Every kind, in the order of listings. Weights sum to 100. */
export const KINDS: readonly DocumentKind[] = [story, chat, log, exam, lesson, rhyme];
