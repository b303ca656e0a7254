/**
 * What this node says of itself to operators, and what all nodes say, gathered by the one that the edge has asked. Where Redis is away it
 * answers for itself alone and says so: half an answer is worth more than none to somebody who looks for what is wrong.
 */
import {
  type ListedSocket,
  MAX_LISTED,
  MAX_LISTED_BY_NODE,
  type NodeAnswers,
  type NodeQuestion,
  type NodeSockets,
  type NodeStatus,
  readNodeAnswer,
} from "#contract/node-query";
import type { Admissions } from "./admissions.ts";
import { type Member, memberKey, type Peers } from "./lease.ts";
import type { Questions } from "./questions.ts";
import type { Admission } from "./sockets.ts";
import { Trouble, type TroubleListener } from "./trouble.ts";

/** A question whose signature was judged. */
export interface AskedNodes {
  /** Whose tokens it is about. */
  readonly about: string;
  readonly nonce: string;
  readonly question: NodeQuestion;
}

export interface NodeSpeakerOptions extends TroubleListener {
  readonly self: Member;
  readonly peers: Peers;
  readonly questions: Questions;
  readonly admissions: Admissions;
  /** How this node is, to an issuer. */
  status(issuer: string): NodeStatus;
}

export interface NodeSpeaker {
  /** This node's own words. */
  own(asked: AskedNodes): string;
  /** Everybody's. Never rejects. */
  all(asked: AskedNodes, query: string, waitMs: number): Promise<NodeAnswers<NodeStatus | NodeSockets>>;
}

/** Characters of a namespace's name, which a client may choose where it is made by a pattern. */
const MAX_NAME = 256;

export function createNodeSpeaker(options: NodeSpeakerOptions): NodeSpeaker {
  const { self, peers, questions, admissions, status } = options;
  const unasked = new Trouble({ begun: "the other nodes could not be asked" }, options);

  function own({ about, question }: AskedNodes): string {
    if (question.about === "status") return JSON.stringify(status(about));
    const open = admissions.openTo(about, question.sub);
    const listed = open.slice(0, MAX_LISTED_BY_NODE).map(listedSocket);
    const said: NodeSockets = { node: self.node, boot: self.boot, sockets: open.length, listed };
    return JSON.stringify(said);
  }

  async function heard(nonce: string, query: string, waitMs: number) {
    try {
      const answers = await questions.ask(nonce, query, waitMs);
      unasked.over();
      return { redis: true, ...answers };
    } catch (error) {
      unasked.failed(error);
      return { redis: false, said: new Map<string, string>(), silent: peers.alive() };
    }
  }

  return {
    own,
    async all(asked, query, waitMs) {
      const { redis, said, silent } = await heard(asked.nonce, query, waitMs);
      const texts = new Map([...said, [memberKey(self), own(asked)]]);
      const answers = new Map<string, NodeStatus | NodeSockets>();
      for (const [member, text] of texts) {
        const answer = understood(member, text, asked.question);
        if (answer !== undefined) answers.set(member, answer);
      }
      const names = new Set([...answers.values()].map(({ node }) => node));
      const missing = [...silent.map(memberKey), ...texts.keys()].filter((member) => !answers.has(member));
      return { redis, answers: shortened([...answers.values()]), silent: namesOf(missing, names) };
    },
  };
}

/** What a member says; undefined for the words of another version, or about another node. */
function understood(member: string, text: string, question: NodeQuestion): NodeStatus | NodeSockets | undefined {
  try {
    const answer = readNodeAnswer(JSON.parse(text), question);
    return memberKey(answer) === member ? answer : undefined;
  } catch {
    return undefined; // it then counts as one that said nothing
  }
}

/** A run that ended a moment ago is told from the one that has taken its name. */
function namesOf(members: readonly string[], taken: ReadonlySet<string>): string[] {
  const names = members.map((member) => {
    const [node, boot] = [member.slice(0, member.lastIndexOf(" ")), member.slice(member.lastIndexOf(" ") + 1)];
    return taken.has(node) ? `${node}~${boot}` : node;
  });
  return [...new Set(names)].sort();
}

/** By name, with no more sockets listed than one answer may have. */
function shortened(answers: readonly (NodeStatus | NodeSockets)[]): (NodeStatus | NodeSockets)[] {
  let left = MAX_LISTED;
  return answers
    .toSorted((a, b) => (a.node < b.node ? -1 : 1))
    .map((answer) => {
      if (!("listed" in answer)) return answer;
      const listed = answer.listed.slice(0, left);
      left -= listed.length;
      return { ...answer, listed };
    });
}

function listedSocket({ socket, claims: { sid, exp } }: Admission): ListedSocket {
  const connected_at = Math.floor(socket.handshake.issued / 1000);
  const transport = socket.conn.transport.name;
  return { id: socket.id, sid, nsp: socket.nsp.name.slice(0, MAX_NAME), transport, connected_at, expires_at: exp };
}
