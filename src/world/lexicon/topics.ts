// The twenty topics: who works there, where, with what things, doing what (base form and past), and how the things are. The second
// table of the world's knowledge, colour and so on of every thing, is in things.ts.

/** A verb: base form and past. */
export interface Verb {
  readonly base: string;
  readonly past: string;
}

/** A topic and its words. */
export interface Topic {
  readonly name: string;
  readonly job: string;
  readonly places: readonly string[];
  readonly nouns: readonly string[];
  readonly verbs: readonly Verb[];
  readonly adjectives: readonly string[];
}

// topic | job | places | things | verbs, base:past | adjectives. A thing belongs to one topic only: it makes the topic evident.
const ROWS = `
farming|farmer|barn field|plow seed corn wheat hay cow pig goat hen egg milk fence|plant:planted feed:fed harvest:harvested raise:raised|fertile muddy ripe
fishing|fisher|pier lake|net hook trout salmon crab eel bait rod shell reed bucket worm|catch:caught cast:cast scale:scaled smoke:smoked|slippery salty fresh
sailing|sailor|harbor island|boat sail mast anchor rope compass oar deck wave map captain flag|steer:steered row:rowed moor:moored launch:launched|windy wooden swift
cooking|cook|kitchen inn|soup pot pan spoon onion pepper salt stew knife carrot bean bowl|boil:boiled stir:stirred fry:fried taste:tasted|spicy hot tasty
baking|baker|bakery mill|bread cake flour dough oven sugar butter pie honey crust yeast tray|bake:baked knead:kneaded slice:sliced sweeten:sweetened|sweet soft golden
music|singer|theater tavern|song drum flute violin harp bell tune choir dance string horn melody|sing:sang play:played hum:hummed practice:practiced|loud slow lively
medicine|doctor|clinic hospital|pill bandage fever needle syrup wound pulse herb bone cough patient cure|heal:healed examine:examined soothe:soothed treat:treated|bitter sterile healthy
school|teacher|school library|book pencil lesson chalk desk paper pupil essay poem letter number ruler|teach:taught read:read write:wrote count:counted|clever silent difficult
forest|hunter|forest cabin|oak pine deer fox bear owl nest mushroom berry moss axe trail|track:tracked chop:chopped gather:gathered follow:followed|wild shady tall
mining|miner|mine tunnel|coal iron silver copper lamp shovel pick rock cart crystal ore dust|dig:dug lift:lifted crush:crushed melt:melted|deep dark heavy
weather|watchman|tower hill|cloud rain wind thunder hail mist sun frost rainbow breeze lightning shower|watch:watched measure:measured predict:predicted record:recorded|cloudy damp gray
stars|astronomer|observatory roof|star moon comet planet telescope orbit eclipse sky galaxy meteor lens chart|observe:observed point:pointed name:named map:mapped|bright distant round
garden|gardener|garden greenhouse|rose tulip bush hedge spade soil weed lily bee petal vine pear|water:watered trim:trimmed prune:pruned grow:grew|green leafy fragrant
trade|merchant|market shop|coin scale silk spice basket price bill crate ribbon jewel pearl carpet|weigh:weighed bargain:bargained pay:paid pack:packed|cheap costly rare
painting|painter|studio gallery|brush canvas paint portrait frame palette sketch ink easel statue clay mural|draw:drew varnish:varnished mix:mixed color:colored|colorful smooth famous
building|mason|quarry castle|brick wall stone hammer nail ladder beam plank door window saw tile|build:built level:leveled lay:laid cut:cut|strong square flat
horses|rider|stable meadow|horse saddle bridle pony mare hoof whip carriage wheel rein stirrup mane|ride:rode groom:groomed train:trained race:raced|fast brave tame
clothes|tailor|workshop palace|coat shirt button thread scarf hat glove wool dress belt sock lace|sew:sewed knit:knitted wear:wore fold:folded|warm elegant loose
machines|engineer|factory station|engine gear wire battery screw motor robot switch pump spring valve cable|repair:repaired oil:oiled check:checked assemble:assembled|metal noisy complex
winter|guide|mountain valley|snow ice sled ski glacier icicle mitten slope avalanche igloo wolf peak|climb:climbed slide:slid thaw:thawed cross:crossed|cold icy steep
`;

/** The topics. */
export const TOPICS: readonly Topic[] = ROWS.trim()
  .split("\n")
  .map((row) => {
    const [name = "", job = "", places = "", nouns = "", verbs = "", adjectives = ""] = row.split("|");
    return {
      name,
      job,
      places: places.split(" "),
      nouns: nouns.split(" "),
      verbs: verbs.split(" ").map((verb) => {
        const [base = "", past = ""] = verb.split(":");
        return { base, past };
      }),
      adjectives: adjectives.split(" "),
    };
  });

/** Every place. */
export const PLACES: readonly string[] = TOPICS.flatMap(({ places }) => places);

/** Every thing. */
export const THINGS: readonly string[] = TOPICS.flatMap(({ nouns }) => nouns);

/** Every job. */
export const JOBS: readonly string[] = TOPICS.map(({ job }) => job);
