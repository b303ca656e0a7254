/**
 * Questions that all nodes of the cluster are asked at once, over a channel of Redis: whom a revocation would hit, how each node is, whose
 * sockets it holds. Each leaves its answer under the question's id, for a moment; whoever asked waits until every node that holds a lease has
 * answered, or for as long as it cares to. What is more than a count is sealed, since anybody might write there.
 */
import type { ClusterSecrets } from "#contract/cluster";
import type { Rehearsal } from "#contract/revocation";
import { type Member, memberKey, type Peers } from "./lease.ts";
import type { LogLinks } from "./redis.ts";
import { isSealed, seal } from "./seal.ts";

export const QUESTIONS = "{keycard}:questions";
const answerKey = (id: string) => `{keycard}:answer:${id}`;

const ANSWER_SECONDS = 30;
const LOOK_MS = 10;
/** Sessions in one command. */
const PAGE = 500;

/** Who has answered. The answers themselves may be long, and are read once. */
const ANSWERED = `
local said = redis.call('HGETALL', KEYS[1])
local names = {}
for i = 1, #said, 2 do names[#names + 1] = said[i] end
return names`;

export interface QuestionsOptions {
  readonly links: LogLinks;
  readonly cluster: string;
  readonly secrets: ClusterSecrets;
  readonly self: Member;
  readonly peers: Peers;
  /** Something in Redis that no node of this cluster sealed. */
  onForged(what: string): void;
}

/** What one node says of a revocation that would be. */
export interface Count {
  readonly sockets: number;
  readonly sids: readonly string[];
}

/** What members said, in their own words, and who said nothing. */
export interface Answers {
  readonly said: ReadonlyMap<string, string>;
  readonly silent: readonly Member[];
}

export interface Questions {
  /** Asks every node, and adds up what those said that answered in time. Rejects when Redis cannot be used. */
  count(id: string, question: string, waitMs: number): Promise<Rehearsal>;
  /** Leaves this node's part of a count. */
  counted(id: string, count: Count): Promise<void>;
  /** Asks every node for its own words. Rejects when Redis cannot be used. */
  ask(id: string, question: string, waitMs: number): Promise<Answers>;
  /** Leaves this node's words. */
  answer(id: string, text: string): Promise<void>;
}

export function createQuestions({ links, cluster, secrets, self, peers, onForged }: QuestionsOptions): Questions {
  /** Resolves when all of these have answered, or the time is over. */
  async function heard(id: string, names: ReadonlySet<string>, waitMs: number): Promise<void> {
    const until = performance.now() + waitMs;
    for (;;) {
      const said = new Set((await links.eval(ANSWERED, [answerKey(id)], [])) as string[]);
      if ([...names].every((name) => said.has(name)) || performance.now() >= until) return;
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  function wordsOf(id: string, member: string, text: string) {
    return ["answer", cluster, id, member, text] as const;
  }

  return {
    async count(id, question, waitMs) {
      const expected = new Set(peers.alive().map(({ node }) => node));
      await links.publish(QUESTIONS, question);
      await heard(id, expected, waitMs);
      const said = await links.commands.hgetall(answerKey(id));
      const sockets = Object.values(said).reduce((sum, some) => sum + Number(some), 0);
      const silent = [...expected].filter((node) => !(node in said));
      return { sockets, sessions: await links.commands.pfcount(`${answerKey(id)}:sids`), silent };
    },
    async counted(id, { sockets, sids }) {
      const key = answerKey(id);
      const pipeline = links.commands.pipeline();
      for (let i = 0; i < sids.length; i += PAGE) pipeline.pfadd(`${key}:sids`, ...sids.slice(i, i + PAGE));
      pipeline.expire(`${key}:sids`, ANSWER_SECONDS).hset(key, self.node, sockets).expire(key, ANSWER_SECONDS);
      await pipeline.exec();
    },
    async ask(id, question, waitMs) {
      const expected = new Map(peers.alive().map((member) => [memberKey(member), member]));
      await links.publish(QUESTIONS, question);
      await heard(id, new Set(expected.keys()), waitMs);
      const said = new Map<string, string>();
      for (const [member, value] of Object.entries(await links.commands.hgetall(answerKey(id)))) {
        const dot = value.indexOf(".");
        const text = value.slice(dot + 1);
        if (isSealed(secrets, wordsOf(id, member, text), value.slice(0, dot))) said.set(member, text);
        else onForged("a node's answer");
      }
      return { said, silent: [...expected].filter(([key]) => !said.has(key)).map(([, member]) => member) };
    },
    async answer(id, text) {
      const member = memberKey(self);
      const value = `${seal(secrets, wordsOf(id, member, text))}.${text}`;
      const key = answerKey(id);
      await links.commands.pipeline().hset(key, member, value).expire(key, ANSWER_SECONDS).exec();
    },
  };
}
