/**
 * One run of the command line: where it prints, whom it asks, which edge it talks to and as whom. What a command is given to do
 * its work.
 */
import { EdgeClient } from "../edge-client.ts";
import { findIdentity, type Identity } from "./credential.ts";
import { UsageError } from "./failure.ts";
import type { Output } from "./output.ts";
import { Profiles } from "./profiles.ts";
import type { Prompt } from "./prompt.ts";
import { dim, t } from "./text.ts";

export interface InvocationOptions {
  readonly output: Output;
  readonly prompt: Prompt;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly profile: string | undefined;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly timeoutSeconds: string | undefined;
  /** Aborted with `Interrupted` on Ctrl-C. */
  readonly signal: AbortSignal;
}

/** An edge, who we are there, and the client that calls it. */
export interface Desk extends Identity {
  readonly edge: EdgeClient;
}

const TIMEOUT_MS = 15_000;
/** Timeouts for which a call is tried again. By default that is longer than the 30 s after which the edge takes up an order anew. */
const PATIENCE = 3;
const MAX_TIMEOUT_SECONDS = 300;

export class Invocation {
  readonly output: Output;
  readonly prompt: Prompt;
  readonly profiles: Profiles;
  readonly profile: string | undefined;
  readonly json: boolean;
  readonly verbose: boolean;
  readonly signal: AbortSignal;
  readonly #env: InvocationOptions["env"];
  readonly #timeoutMs: number;
  #desk: Promise<Desk> | undefined;

  constructor(options: InvocationOptions) {
    this.output = options.output;
    this.prompt = options.prompt;
    this.profiles = new Profiles(options.env);
    this.profile = options.profile;
    this.json = options.json;
    this.verbose = options.verbose;
    this.signal = options.signal;
    this.#env = options.env;
    this.#timeoutMs = timeoutMs(options.timeoutSeconds);
  }

  /** The edge that this is about, with our credential. */
  desk(): Promise<Desk> {
    this.#desk ??= this.#findDesk();
    return this.#desk;
  }

  /** The client of `desk`. */
  async edge(): Promise<EdgeClient> {
    return (await this.desk()).edge;
  }

  /**
   * An edge at this address; without a credential, nothing but what anybody may ask.
   *
   * @param until Ctrl-C ends its calls, unless it has to put away what was made
   */
  connect(
    edgeUrl: string,
    adminToken?: Identity["credential"],
    until: "interrupted" | "whatever happens" = "interrupted",
  ): EdgeClient {
    return new EdgeClient({
      edgeUrl,
      ...(adminToken && { adminToken }),
      answerWithinMs: this.#timeoutMs,
      patienceMs: this.#timeoutMs * PATIENCE,
      ...(until === "interrupted" && { signal: this.signal }),
      onAnswer: (operation, status, requestId) => {
        if (this.verbose) this.output.note(dim(t`${operation} → ${status}  request ${requestId ?? "without an id"}`));
      },
      onRetry: (error, waitMs) => {
        this.output.note(dim(t`${error.message.replace(/\.$/, "")}; trying again in ${(waitMs / 1000).toFixed(1)} s`));
      },
    });
  }

  async #findDesk(): Promise<Desk> {
    const identity = await findIdentity({
      profile: this.profile,
      env: this.#env,
      profiles: this.profiles,
      connect: (edgeUrl) => this.connect(edgeUrl),
    });
    return { ...identity, edge: this.connect(identity.edgeUrl, identity.credential) };
  }
}

function timeoutMs(seconds: string | undefined): number {
  if (seconds === undefined) return TIMEOUT_MS;
  const number = Number(seconds);
  if (!(number > 0 && number <= MAX_TIMEOUT_SECONDS)) {
    throw new UsageError(
      `--timeout cannot be "${seconds}".`,
      `It is a number of seconds, at most ${MAX_TIMEOUT_SECONDS}.`,
    );
  }
  return number * 1000;
}
