// What strangers are told: facts without folders of this machine, and the status that fits.
import { describe, expect, it } from "vitest";
import { NlaError } from "../error.js";
import { errorBody, publicName, requestError, statusOf } from "./http-error.js";

const error = (found: string, code = "contract.suffix-drift") =>
  new NlaError({
    code,
    subject: "/srv/my models/qwen/nla_meta.yaml: tokens",
    found,
    wanted: "an id",
    next: "Look.",
  });

describe("errors over HTTP", () => {
  it.each([
    ["token 5 in /home/anna/models/qwen/tokenizer.json", "token 5 in tokenizer.json"],
    ['"/data/my models/a/b.yaml" and (/x/y)', '"b.yaml" and (y)'],
    ["ENOENT: no such file, open '/etc/secret/key'", "ENOENT: no such file, open 'key'"],
    ["C:\\Users\\anna\\model.gguf is cut", "model.gguf is cut"],
    ["1/2 of <a></a> and/or more", "1/2 of <a></a> and/or more"],
  ])("%s", (found, shown) => {
    const { error: body } = errorBody(error(found));
    expect(body["found"]).toBe(shown);
    expect(body["subject"]).toBe("nla_meta.yaml: tokens");
    expect(JSON.stringify(body)).not.toMatch(/anna|srv|secret\/|my models/);
    expect(errorBody(new Error(found)).error["message"]).toBe(`unexpected: ${shown}`);
  });

  it("what the client sent is shown as it was sent", () => {
    const thrown = requestError("route", "the path", "GET /v1/what/ever", "/health, /generate");
    expect(errorBody(thrown).error).toMatchObject({
      found: "GET /v1/what/ever",
      wanted: "/health, /generate",
    });
    expect(statusOf(thrown)).toBe(404);
  });

  it("a model that was named by its path is served under its own name", () => {
    const names = ["/srv/models/qwen/", "./runs/a", "C:\\models\\b", "org/name", "aidreams260K"].map(
      publicName,
    );
    expect(names).toEqual(["qwen", "a", "b", "org/name", "aidreams260K"]);
  });
});
