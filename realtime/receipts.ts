/**
 * Who has done what about a revocation, in this cluster. Nodes leave their words in Redis, each sealed with the cluster's secret,
 * and so is the list of those whose word is awaited: whoever can write to Redis can make a receipt late, but not false.
 */
import type { ClusterReceipt, ClusterSecrets, FencedNode, NodeReceipt } from "#contract/cluster";
import type { Applied } from "./admissions.ts";
import { keepNewest } from "./keep-newest.ts";
import { type Member, memberKey, type Peers } from "./lease.ts";
import type { LogLinks } from "./redis.ts";
import { isSealed, seal } from "./seal.ts";

const WORDS_AT_ONCE = 100;
/** Words about one issuer's events that wait for Redis to come back. Of older ones the edge's feed knows that they are done. */
const WORDS_KEPT = 50_000;
const FIRST_LOOK_MS = 2;
const SLOWEST_LOOK_MS = 50;

/** The key of a receipt. */
export function receiptKey(issuer: string, id: string): string {
  return `{keycard}:receipt:${issuer} ${id}`;
}

/** Writes words where the event is known, and says which words of the same member stand there already. */
const ACKNOWLEDGE = `
local before = {}
for i, key in ipairs(KEYS) do
  before[i] = ''
  if redis.call('EXISTS', key) == 1 and redis.call('HSETNX', key, ARGV[1], ARGV[i + 1]) == 0 then
    before[i] = redis.call('HGET', key, ARGV[1])
  end
end
return before`;

const OVERWRITE = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end";

const READ = `
local receipts = {}
for i, key in ipairs(KEYS) do receipts[i] = redis.call('HGETALL', key) end
return receipts`;

const EXPECT = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'expected', ARGV[1]) end";

export interface ReceiptsOptions {
  readonly links: LogLinks;
  readonly cluster: string;
  readonly secrets: ClusterSecrets;
  readonly self: Member;
  readonly peers: Peers;
  /** Whether words may wait until somebody flushes: while a node finds out what it missed, that goes first. */
  mayWait(): boolean;
  /** Something in Redis that no node of this cluster sealed. */
  onForged(what: string): void;
}

/** Whose words are awaited. Who has not watched for long enough may not have seen everybody, and does not vouch for the list. */
interface Expected {
  readonly vouched: boolean;
  readonly members: readonly Member[];
}

export interface Receipts {
  /** Notes whose word is awaited: every node that may hold sockets now. @param before what is noted already, as it stands in Redis */
  expect(issuer: string, id: string, before: string): Promise<void>;
  /** Leaves this node's word once there is one to give; where Redis cannot take it now, it waits until somebody flushes. */
  acknowledge(issuer: string, id: string, done: Applied["done"]): void;
  /** Writes what could not be written before. */
  flush(): Promise<void>;
  /** Words that could not be written yet. */
  readonly unwritten: number;
  /** What the cluster knows of these events, once nothing is pending or `waitMs` are over; events that it does not know are left out. */
  read(issuer: string, ids: readonly string[], waitMs: number): Promise<readonly ClusterReceipt[]>;
}

export function createReceipts(options: ReceiptsOptions): Receipts {
  const { links, cluster, secrets, self, peers, onForged } = options;
  const field = `node:${memberKey(self)}`;
  /** Of each issuer, by the event's id: the very string that the event holds, since there can be a hundred thousand at once. */
  const unwritten = new Map<string, Map<string, NodeReceipt>>();
  let writing: Promise<void> | undefined;

  function flush(): Promise<void> {
    writing ??= write().finally(() => {
      writing = undefined;
    });
    return writing;
  }

  /** In one go for all that wait. */
  async function write(): Promise<void> {
    for (const [issuer, left] of unwritten) while (left.size > 0) await writeSome(issuer, left);
  }

  async function writeSome(issuer: string, left: Map<string, NodeReceipt>): Promise<void> {
    const batch = firstOf(left, WORDS_AT_ONCE);
    const words = batch.map(([id, word]) => sealedWord(issuer, id, word));
    const keys = batch.map(([id]) => receiptKey(issuer, id));
    const before = (await links.eval(ACKNOWLEDGE, keys, [field, ...words])) as string[];
    for (const [index, [id, word]] of batch.entries()) {
      // Not one that came meanwhile: what was written may have met no receipt, because the event was not appended yet.
      if (left.get(id) === word) left.delete(id);
      const standing = before[index] ?? "";
      if (standing === "" || readWord(issuer, id, field, standing) !== undefined) continue;
      // Somebody took this node's place before it spoke.
      await links.eval(OVERWRITE, [keys[index] ?? ""], [field, words[index] ?? ""]);
    }
  }

  function sealedWord(issuer: string, id: string, { applied_at, closed }: NodeReceipt): string {
    return `${applied_at}.${closed}.${seal(secrets, wordWords(issuer, id, memberKey(self), applied_at, closed))}`;
  }

  function wordWords(issuer: string, id: string, member: string, appliedAt: number, closed: number) {
    return ["word", cluster, issuer, id, member, appliedAt, closed] as const;
  }

  function readWord(issuer: string, id: string, of: string, value: string): NodeReceipt | undefined {
    const member = of.slice("node:".length);
    const [appliedAt = "", closed = "", signature = ""] = value.split(".");
    const words = wordWords(issuer, id, member, Number(appliedAt), Number(closed));
    if (!isSealed(secrets, words, signature)) {
      onForged("a node's word about a revocation");
      return undefined;
    }
    const node = member.slice(0, member.lastIndexOf(" "));
    return { node, applied_at: Number(appliedAt), closed: Number(closed) };
  }

  function readExpected(issuer: string, id: string, value: string): Expected | undefined {
    const dot = value.indexOf(".");
    const text = value.slice(dot + 1);
    if (dot < 0 || !isSealed(secrets, ["expected", cluster, issuer, id, text], value.slice(0, dot))) {
      if (value !== "") onForged("the list of nodes that a revocation waits for");
      return undefined;
    }
    const [vouched, members] = JSON.parse(text) as [number, [string, string, number, number][]];
    return {
      vouched: vouched === 1,
      members: members.map(([node, boot, leaseMs, keepMs]) => ({ node, boot, leaseMs, keepMs })),
    };
  }

  /** Members that may hold sockets, this one among them whatever Redis says. */
  function present(): readonly Member[] {
    return [...peers.alive().filter((member) => memberKey(member) !== memberKey(self)), self];
  }

  function judge(issuer: string, id: string, fields: readonly string[]): ClusterReceipt | undefined {
    const hash = new Map<string, string>();
    for (let i = 0; i < fields.length; i += 2) hash.set(fields[i] ?? "", fields[i + 1] ?? "");
    const expected = readExpected(issuer, id, hash.get("expected") ?? "");
    if (expected === undefined) return undefined;
    const words = new Map<string, NodeReceipt>();
    for (const [name, value] of hash) {
      const word = name.startsWith("node:") ? readWord(issuer, id, name, value) : undefined;
      if (word !== undefined) words.set(name.slice("node:".length), word);
    }
    return receiptOf(id, expected, words);
  }

  function receiptOf(
    id: string,
    { vouched, members }: Expected,
    words: ReadonlyMap<string, NodeReceipt>,
  ): ClusterReceipt {
    // Whoever was there then and is not any more has lost its sockets; so those who are there now make the list whole.
    const whole = new Map(
      (vouched ? members : [...members, ...present()]).map((member) => [memberKey(member), member]),
    );
    const mayVouch = vouched || peers.canVouch(self);
    const applied: NodeReceipt[] = [];
    const pending: string[] = [];
    const fenced: FencedNode[] = [];
    for (const [key, word] of words) {
      if (mayVouch || key !== memberKey(self)) applied.push(word);
    }
    const heard = new Set(applied.map(({ node }) => node));
    const nameOf = ({ node, boot }: Member) => (heard.has(node) ? `${node}~${boot}` : node);
    for (const [key, member] of whole) {
      const end = peers.endOf(member);
      if (key === memberKey(self) ? !mayVouch || !words.has(key) : !words.has(key) && end === undefined) {
        pending.push(nameOf(member));
      } else if (!words.has(key) && end !== undefined) {
        fenced.push({ node: nameOf(member), fenced_at: Math.round(Date.now() - performance.now() + end) });
      }
    }
    const expected = [...heard, ...pending, ...fenced.map(({ node }) => node)];
    return { id, expected: [...new Set(expected)].sort(), applied, pending, fenced };
  }

  async function look(issuer: string, ids: readonly string[]): Promise<readonly ClusterReceipt[]> {
    if (ids.length === 0) return [];
    const keys = ids.map((id) => receiptKey(issuer, id));
    const hashes = (await links.eval(READ, keys, [])) as string[][];
    const receipts = ids.map((id, index) => judge(issuer, id, hashes[index] ?? []));
    return receipts.filter((receipt) => receipt !== undefined);
  }

  function leave(issuer: string, id: string, { ...word }: NodeReceipt): void {
    const left = wordsOf(issuer);
    // Another object each time, so that writing knows the one that it wrote.
    left.set(id, word);
    keepNewest(left, WORDS_KEPT);
    if (options.mayWait()) return;
    // One that was just ending, as after a heartbeat that brought the event itself, has not seen it.
    flush()
      .then(() => (left.get(id) === word ? flush() : undefined))
      .catch(() => undefined); // the next heartbeat writes it
  }

  function wordsOf(issuer: string): Map<string, NodeReceipt> {
    const known = unwritten.get(issuer) ?? new Map<string, NodeReceipt>();
    unwritten.set(issuer, known);
    return known;
  }

  return {
    flush,
    get unwritten() {
      return [...unwritten.values()].reduce((sum, left) => sum + left.size, 0);
    },
    async expect(issuer, id, before) {
      const known = before === "" ? undefined : readExpected(issuer, id, before);
      if (known?.vouched) return;
      // Who was there when it came in first stays awaited.
      const all = new Map([...(known?.members ?? []), ...present()].map((member) => [memberKey(member), member]));
      const members = [...all.values()].map(({ node, boot, leaseMs, keepMs }) => [node, boot, leaseMs, keepMs]);
      const text = JSON.stringify([peers.canVouch(self) ? 1 : 0, members]);
      const signature = seal(secrets, ["expected", cluster, issuer, id, text]);
      await links.eval(EXPECT, [receiptKey(issuer, id)], [`${signature}.${text}`]);
    },
    acknowledge(issuer, id, done) {
      if (done instanceof Promise) done.then((word) => leave(issuer, id, word)).catch(() => undefined);
      else leave(issuer, id, done);
    },
    async read(issuer, ids, waitMs) {
      const until = performance.now() + waitMs;
      for (let pause = FIRST_LOOK_MS; ; pause = Math.min(pause * 2, SLOWEST_LOOK_MS)) {
        const receipts = await look(issuer, ids);
        const settled = receipts.every(({ pending }) => pending.length === 0);
        if (settled || performance.now() >= until) return receipts;
        await new Promise((resolve) => setTimeout(resolve, pause));
      }
    },
  };
}

function firstOf<T>(all: Iterable<T>, count: number): T[] {
  const first: T[] = [];
  for (const each of all) if (first.push(each) >= count) break;
  return first;
}
