// What a decoder is, in numbers: every setting that changes the mathematics. Families differ only in how they spell these
// settings in a config.json (families.ts); the forward pass knows no family.

/** How positions turn queries and keys in one block. */
export interface RopeConfig {
  readonly theta: number;
  /** Scaling of the frequencies; null: none. */
  readonly scaling: RopeScaling | null;
}

/** One factor for every frequency, Llama 3's scaling by wavelength, or YaRN's with a factor on the scores. */
export type RopeScaling =
  | { readonly kind: "linear"; readonly factor: number }
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalLength: number;
    }
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalLength: number;
      /** Frequencies that turn more often than this within the original length are kept. */
      readonly fastTurns: number;
      /** Those that turn less often than this are divided by `factor`. */
      readonly slowTurns: number;
      /** Factor on cos and sin; null: 0.1 ln(factor) + 1. */
      readonly magnitude: number | null;
      /** Whether the bounds between the two are whole pair numbers. */
      readonly truncate: boolean;
    };

/** The shape and settings of a decoder. Lengths are in elements or tokens. */
export interface DecoderConfig {
  /** `model_type` of the config file. */
  readonly family: string;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly vocabulary: number;
  /** Longest text, in tokens. */
  readonly contextLength: number;
  readonly normEps: number;
  /** What is added to a norm's stored gain: 0, or 1 for the Gemmas. */
  readonly gainOffset: number;
  /** Factor on the embedding's output. */
  readonly embeddingScale: number;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
  readonly activation: "silu" | "gelu_tanh";
  readonly attentionBias: boolean;
  /** Whether each head's q and k are normalised before rope. */
  readonly qkNorm: boolean;
  /** Whether attention and feed-forward outputs are normalised before they are added. */
  readonly postNorms: boolean;
  /** Factor on attention scores. */
  readonly attentionScale: number;
  readonly attentionSoftcap: number | null;
  readonly logitSoftcap: number | null;
  /** One per block. */
  readonly rope: readonly RopeConfig[];
  /** One per block: how many positions back it sees, itself included; null: all. */
  readonly windows: readonly (number | null)[];
  /** What stands before every name in the files: `language_model.` beside a vision tower, else nothing. */
  readonly weightPrefix: string;
  readonly bosId: number | null;
  readonly eosIds: readonly number[];
  /** The file as it was, so that what nobody reads is written back. */
  readonly json: Readonly<Record<string, unknown>>;
}

/** Whether one product can make queries, keys and values: not where they get a bias, or a norm before they are turned. */
export function mergesHeads({ attentionBias, qkNorm }: DecoderConfig): boolean {
  return !attentionBias && !qkNorm;
}
