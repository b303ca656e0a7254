/**
 * One revocation can be followed by one id from the call to each node's last closed socket; the dashboard, the rules and the tables of
 * infra/observability.md speak of what a running edge and running nodes really expose and log; and faults make rules fire.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse as parseYaml } from "yaml";
import type { Receipt } from "../../infra/edge-client.ts";
import { findExecutable } from "../../infra/packages.ts";
import { until } from "../../infra/until.ts";
import { chosenBy, evaluate, parseExposition, parseQuery, type Selector, type Series } from "../support/promql.ts";
import { startTestStack, type TestStack } from "../support/test-stack.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const read = (path: string) => readFileSync(join(ROOT, path), "utf8");
const PAGE = read("infra/observability.md");

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly runbook_url: string };
}
const RULES_FILE = join(ROOT, "infra/observability/alerts.yml");
const { groups } = parseYaml(readFileSync(RULES_FILE, "utf8")) as { groups: { name: string; rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}
const dashboard = JSON.parse(read("infra/observability/dashboard.json")) as { panels: Panel[] };
const queries = [
  ...dashboard.panels.flatMap(({ title, targets = [] }) => targets.map(({ expr }) => [title, expr] as const)),
  ...rules.map(({ alert, expr }) => [alert, expr] as const),
];

let system: TestStack;
/** Of a revocation that went the usual way. */
let usual: { readonly id: string; readonly request: string };

beforeAll(async () => {
  system = await startTestStack({}, { nodes: 2 });
});
afterAll(() => system.stop());

/** Of one call, the receipt and its `X-Request-Id`. */
async function revoke(target: object): Promise<{ readonly id: string; readonly request: string }> {
  const response = await fetch(`${system.stack.edgeUrl}/admin/revocations`, {
    method: "POST",
    headers: { authorization: `Bearer ${system.stack.adminToken}`, "content-type": "application/json" },
    body: JSON.stringify({ target, reason: "to be followed" }),
  });
  expect(response.status).toBe(202);
  const { id } = (await response.json()) as Receipt;
  return { id, request: response.headers.get("x-request-id") ?? "" };
}

interface Line {
  readonly process: string;
  readonly level: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

/** Every line of the edge and of the nodes that is one of theirs. */
function logged(): Line[] {
  return system.lines.flatMap((text) => {
    const [, process = "", json = ""] = /^(\S+) (?:\w+: )?(\{.*\})$/.exec(text) ?? [];
    return json === "" || process === "redis"
      ? []
      : [{ ...(JSON.parse(json) as Omit<Line, "process">), process } as Line];
  });
}

const linesAbout = (id: string) => logged().filter(({ revocation }) => revocation === id);

/** Everything that the edge and the nodes expose; a node or an edge that does not answer exposes nothing. */
async function scrape(): Promise<Series[]> {
  const { edgeUrl, adminToken, nodes } = system.stack;
  const sources = [
    ...nodes.map(({ url }) => fetch(`${url}/metrics`, { signal: AbortSignal.timeout(5_000) })),
    fetch(`${edgeUrl}/metrics`, {
      headers: { authorization: `Bearer ${adminToken}` },
      signal: AbortSignal.timeout(5_000),
    }),
  ];
  const texts = await Promise.all(sources.map((source) => source.then((answer) => answer.text()).catch(() => "")));
  return texts.flatMap(parseExposition);
}

describe("one revocation", () => {
  test("is named in every line about it, with the call that decided it, from the decision to each node's last socket", async () => {
    const person = await system.newPerson();
    const tokens = await system.logIn(person);
    await system.openEverywhere(tokens.access_token);
    usual = await revoke({ kind: "user", sub: person.sub });
    const receipt = await system.edge.enforcedReceipt(usual.id);
    expect(receipt).toMatchObject({ id: usual.id, request: usual.request, closed: 2 });
    const edge = [
      "revocation decided",
      "revocation delivered",
      "revocation enforced by a cluster",
      "revocation enforced",
    ];
    const node = ["revocation applied", "revocation closed its sockets"];
    await until("all is logged", () => linesAbout(usual.id).length >= edge.length + 2 * node.length);
    const said = (process: string) => linesAbout(usual.id).filter((line) => line.process === process);
    expect(said("edge").map(({ message }) => message)).toEqual(edge);
    for (const { name } of system.stack.nodes) {
      expect(said(name).map(({ message }) => message)).toEqual(node);
      expect(said(name)[1]).toMatchObject({ node: name, closed: 1, code: "session_revoked" });
    }
    expect(new Set(linesAbout(usual.id).map(({ request }) => request))).toEqual(new Set([usual.request]));
    expect(usual.request).toMatch(/^[\w-]{8,64}$/);
  });

  test("stands under the same two names in the audit trail", async () => {
    const { edgeUrl, adminToken } = system.stack;
    const headers = { authorization: `Bearer ${adminToken}` };
    const trail = async () => {
      const answer = await fetch(`${edgeUrl}/admin/audit?limit=500`, { headers });
      return ((await answer.json()) as { records: { type: string; revocation?: string; request?: string }[] }).records;
    };
    const records = await until("it is in the trail", async () => {
      const found = (await trail()).filter(({ revocation }) => revocation === usual.id);
      return found.length >= 2 && found;
    });
    const [decided, enforced] = records;
    expect(decided).toMatchObject({ type: "revocation", request: usual.request });
    expect(enforced).toMatchObject({ type: "revocation_enforced" });
  });
});

describe("every query", () => {
  let series: readonly Series[];
  beforeAll(async () => {
    series = [...(await scrape()), ...["keycard-nodes", "keycard-edge"].map(up)];
  });

  /** What Prometheus adds by itself, for each job of prometheus.yml. */
  function up(job: string): Series {
    const { scrape_configs } = parseYaml(read("infra/observability/prometheus.yml"));
    expect(scrape_configs.map(({ job_name }: { job_name: string }) => job_name)).toContain(job);
    return { metric: "up", labels: { job, instance: "anywhere" }, value: 1 };
  }

  test.for(queries)("of %s speaks of what is exposed: %s", ([, expr]) => {
    const { selectors, groupings } = parseQuery(expr);
    expect(selectors.length).toBeGreaterThan(0);
    for (const selector of selectors) expect(chosenBy(selector, series), JSON.stringify(selector)).not.toEqual([]);
    const known = new Set(
      selectors.flatMap((selector) => chosenBy(selector, series)).flatMap(({ labels }) => Object.keys(labels)),
    );
    expect(groupings.filter((label) => !known.has(label))).toEqual([]);
  });

  test("and the tables of the page name what is exposed, all of it and nothing else, with its labels", () => {
    const ours = series.filter(({ metric }) => metric.startsWith("keycard_"));
    const exposed = new Map<string, Set<string>>();
    for (const { metric, labels } of ours) {
      const family = metric.replace(/_(bucket|sum|count)$/, "");
      const names = Object.keys(labels).filter(
        (label) => label !== "le" && (family.includes("_edge_") || !EVERYWHERE.includes(label)),
      );
      exposed.set(family, new Set([...(exposed.get(family) ?? []), ...names]));
    }
    const rows = [...PAGE.matchAll(/^\| (`keycard_[^|]+) \|([^|]*)\|/gm)].flatMap(([, metrics = "", labels = ""]) => {
      const names = [...labels.matchAll(/`(\w+)`/g)].map(([, label = ""]) => label);
      return [...metrics.matchAll(/`(\w+)`/g)].map(([, metric = ""]) => [metric, names.sort()] as const);
    });
    expect(Object.fromEntries(rows)).toEqual(
      Object.fromEntries([...exposed].map(([metric, labels]) => [metric, [...labels].sort()])),
    );
  });
});

/** Of every series of a node. */
const EVERYWHERE = ["node", "cluster"];

describe("the dashboard", () => {
  test("has panels with titles of their own, that lie beside and not on each other", () => {
    const { panels } = dashboard;
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length);
    expect(new Set(panels.map(({ title }) => title)).size).toBe(panels.length);
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, i) => `${x + (i % w)},${y + Math.floor(i / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    expect(Math.max(...panels.map(({ gridPos: { x, w } }) => x + w))).toBeLessThanOrEqual(24);
    for (const { type, targets } of panels) expect(targets === undefined).toBe(type === "row");
  });

  test("shows every metric of ours that there is", async () => {
    const shown = queries.flatMap(([, expr]) => parseQuery(expr).selectors.map(({ metric }) => familyOf(metric)));
    const exposed = (await scrape())
      .map(({ metric }) => familyOf(metric))
      .filter((name) => name.startsWith("keycard_"));
    expect([...new Set(exposed)].filter((name) => !shown.includes(name))).toEqual([]);
  });

  function familyOf(metric: string): string {
    return metric.replace(/_(bucket|sum|count)$/, "");
  }
});

describe("every alert", () => {
  test.for(rules.map((rule) => [rule.alert, rule] as const))(
    "%s says how urgent it is and where to read on",
    ([, rule]) => {
      expect(["page", "ticket"]).toContain(rule.labels.severity);
      const [path = "", anchor = ""] = rule.annotations.runbook_url.split("#");
      expect(path).toBe("infra/runbook.md");
      const headings = [...read(path).matchAll(/^## (.+)$/gm)].map(([, heading = ""]) => heading);
      expect(headings.map((heading) => heading.toLowerCase().replaceAll(" ", "-"))).toContain(anchor);
      // And the runbook's first table leads from the alert to that section.
      const row = read(path)
        .split("\n")
        .find((line) => line.startsWith("|") && line.includes(`\`${rule.alert}\``));
      expect(row).toContain(`(#${anchor})`);
      for (const [, label] of rule.annotations.summary.matchAll(/\$labels\.(\w+)/g)) {
        expect(["node", "cluster", "instance"]).toContain(label);
      }
    },
  );

  test("is good in the eyes of promtool, where there is one", async () => {
    const promtool = (await findExecutable("promtool")) ?? process.env.PROMTOOL;
    expect(rules.length).toBeGreaterThan(15);
    if (promtool !== undefined) await promisify(execFile)(promtool, ["check", "rules", RULES_FILE]);
  });
});

describe("faults make rules fire", () => {
  /** What this evaluator knows nothing of: a quantile of a histogram, and what Prometheus itself adds. */
  const LEFT_OUT = ["KeycardRevocationsSlow", "KeycardEdgeAway", "KeycardNodeGone"];
  /** A busy machine stalls by itself. */
  const ANYTIME = ["KeycardNodeStalls"];

  /** The rules that say something of two scrapes, whatever their `for`. Ages are tried at a second. */
  function firing(before: readonly Series[], after: readonly Series[]): string[] {
    const tried = rules.filter(({ alert }) => ![...LEFT_OUT, ...ANYTIME].includes(alert));
    const sooner = (expr: string) => expr.replace(/(_seconds) > (60|600)$/, "$1 > 1");
    return tried.filter(({ expr }) => evaluate(sooner(expr), before, after).length > 0).map(({ alert }) => alert);
  }

  /** Waits until all of these fire, and returns what does. */
  async function untilFiring(before: readonly Series[], expected: readonly string[]): Promise<string[]> {
    return await until(
      `${expected.join()} fire`,
      async () => {
        const now = firing(before, await scrape());
        return expected.every((alert) => now.includes(alert)) && now;
      },
      { withinMs: 60_000 },
    );
  }

  let healthy: readonly Series[];

  test("and none does while all is well", async () => {
    healthy = await scrape();
    expect(firing(healthy, await scrape())).toEqual([]);
    const loop: Selector = { metric: "nodejs_eventloop_lag_p99_seconds", labels: [] };
    expect(chosenBy(loop, healthy).length).toBe(system.stack.nodes.length);
  });

  test("Redis is killed: nodes live by the feed, the edge cannot deliver, and a revocation keeps its name on that way", async () => {
    const person = await system.newPerson();
    const sockets = await system.openEverywhere((await system.logIn(person)).access_token);
    await system.stack.kill("redis");
    const { id, request } = await revoke({ kind: "user", sub: person.sub });
    const now = await untilFiring(healthy, ["KeycardRedisAway", "KeycardUndelivered", "KeycardReceiptOpen"]);
    expect(now).not.toContain("KeycardFenced");
    expect(now).not.toContain("KeycardGap");
    await until("everybody is out", () => sockets.every(({ socket }) => !socket.connected));
    const closed = () => linesAbout(id).filter(({ message }) => message === "revocation closed its sockets");
    await until("each node said so", () => closed().length === system.stack.nodes.length);
    await until("the edge said that it could not deliver", () =>
      linesAbout(id).some(({ message }) => message === "a receiver did not take an event"),
    );
    expect(new Set(linesAbout(id).map((line) => line.request))).toEqual(new Set([request]));
  });

  test("then the edge is killed as well: everybody is fenced, and nobody gets in", async () => {
    const before = await scrape();
    await system.stack.kill("edge");
    await untilFiring(before, ["KeycardNobodyGetsIn", "KeycardFenced", "KeycardNodeNotReady", "KeycardFeedFails"]);
  });

  test("and when both are back nothing fires any more, and nothing was lost", async () => {
    await system.stack.restart("redis");
    await system.stack.restart("edge");
    const quiet = async () => {
      const before = await scrape();
      const now = firing(before, await scrape());
      return now.length === 0;
    };
    await until("all is well", quiet, { withinMs: 60_000 });
  });
});

describe("every field of a log line", () => {
  const documented = new Set(
    [
      ...(PAGE.split("## Logs")[1]
        ?.split("## Metrics")[0]
        ?.matchAll(/^\| (`[^|]+) \|/gm) ?? []),
    ].flatMap(([, cell = ""]) => [...cell.matchAll(/`(\w+)`/g)].map(([, field = ""]) => field)),
  );
  const ALWAYS = ["level", "time", "message"];

  test("that was logged above is in the table", () => {
    const fields = new Set(logged().flatMap(({ process: _, ...line }) => Object.keys(line)));
    expect([...fields].filter((field) => !documented.has(field) && !ALWAYS.includes(field))).toEqual([]);
    // So that the question was asked of something.
    expect(fields.size).toBeGreaterThan(25);
  });

  test.for(["edge/log.ts", "realtime/log-lines.ts"])("that %s lets anybody log is in the table", (path) => {
    const [, members = ""] = /interface LogFields \{([\s\S]*?)\n\}/.exec(read(path)) ?? [];
    const fields = [...members.matchAll(/^ {2}readonly (\w+)\?/gm)].map(([, field = ""]) => field);
    expect(fields.length).toBeGreaterThan(20);
    expect(fields.filter((field) => !documented.has(field))).toEqual([]);
  });

  test("and the table names nothing that nobody can log", () => {
    const source = ["edge/log.ts", "realtime/log-lines.ts"].map(read).join("");
    // Of every line of a node.
    const own = ["node", "cluster"];
    expect([...documented].filter((field) => !own.includes(field) && !source.includes(`readonly ${field}?`))).toEqual(
      [],
    );
  });
});
