/**
 * Queries in PromQL, by the grammar of Prometheus itself: what they name, and, for rules as simple as an alert's, what they say of two
 * scrapes one after the other. A rate is the rise between those; durations do not matter.
 */
import { parser } from "@prometheus-io/lezer-promql";

type Tree = ReturnType<typeof parser.parse>;
type SyntaxNode = Tree["topNode"];

export interface Selector {
  readonly metric: string;
  readonly labels: readonly { readonly name: string; readonly operator: string; readonly value: string }[];
}

export interface Query {
  readonly selectors: readonly Selector[];
  /** Labels that it groups by. */
  readonly groupings: readonly string[];
}

/** A series of an exposition: its labels, and its value. */
export interface Series {
  readonly metric: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** What Grafana puts in; a query is judged as if it had. */
const VARIABLES: readonly (readonly [string, string])[] = [
  ["$__rate_interval", "5m"],
  ["$cluster", ".*"],
];

/** @throws {Error} for what is no PromQL */
export function parseQuery(text: string): Query {
  const query = withoutVariables(text);
  const selectors: Selector[] = [];
  const groupings: string[] = [];
  parser.parse(query).iterate({
    enter({ type, from, to, node }) {
      if (type.isError) throw new Error(`not PromQL, at ${from}: ${text}`);
      if (type.name === "VectorSelector") selectors.push(selectorAt(node, query));
      if (type.name === "LabelName" && node.parent?.name === "GroupingLabels") groupings.push(query.slice(from, to));
    },
  });
  return { selectors, groupings };
}

/**
 * What a rule says: the series that are left of it.
 *
 * @throws {Error} for more of the language than this knows
 */
export function evaluate(text: string, before: readonly Series[], after: readonly Series[]): Series[] {
  const query = withoutVariables(text);
  const root = parser.parse(query).topNode.firstChild;
  if (root === null) throw new Error("nothing is asked");
  return resultOf(root);

  function resultOf(node: SyntaxNode): Series[] {
    switch (node.name) {
      case "VectorSelector":
        return chosenBy(selectorAt(node, query), after);
      case "FunctionCall":
        return riseOf(node);
      case "AggregateExpr":
        return aggregate(node);
      case "BinaryExpr":
        return combine(node);
      default:
        throw new Error(`${node.name} is not evaluated here: ${text}`);
    }
  }

  function riseOf(node: SyntaxNode): Series[] {
    const [name, body] = childrenOf(node);
    const selector = descend(body, "VectorSelector");
    if (!["rate", "increase"].includes(textOf(name)) || selector === undefined) throw new Error(`no rise: ${text}`);
    const earlier = new Map(before.map((series) => [nameOf(series), series.value]));
    return chosenBy(selectorAt(selector, query), after).flatMap((series) => {
      const since = earlier.get(nameOf(series));
      return since === undefined ? [] : [{ ...series, value: series.value - since }];
    });
  }

  function aggregate(node: SyntaxNode): Series[] {
    const [operator, modifier, body] = childrenOf(node);
    const by = childrenOf(descend(modifier, "GroupingLabels")).map(textOf);
    const groups = new Map<string, Series[]>();
    for (const series of resultOf(childrenOf(body)[0] as SyntaxNode)) {
      const key = JSON.stringify(by.map((label) => series.labels[label]));
      groups.set(key, [...(groups.get(key) ?? []), series]);
    }
    return [...groups.values()].map((members) => {
      const values = members.map(({ value }) => value);
      const value = textOf(operator) === "max" ? Math.max(...values) : values.reduce((sum, each) => sum + each, 0);
      const labels = Object.fromEntries(by.map((label) => [label, members[0]?.labels[label] ?? ""]));
      return { metric: "", labels, value };
    });
  }

  function combine(node: SyntaxNode): Series[] {
    const [left, operator, right] = childrenOf(node) as [SyntaxNode, SyntaxNode, SyntaxNode];
    const some = resultOf(left);
    if (operator.name === "Or") return [...some, ...resultOf(right)];
    if (operator.name === "And") {
      const others = new Set(resultOf(right).map(({ labels }) => JSON.stringify(labels)));
      return some.filter(({ labels }) => others.has(JSON.stringify(labels)));
    }
    const bound = Number(textOf(right));
    if (operator.name === "Gtr") return some.filter(({ value }) => value > bound);
    if (operator.name === "Eql") return some.filter(({ value }) => value === bound);
    throw new Error(`${operator.name} is not evaluated here: ${text}`);
  }

  function textOf(node: SyntaxNode | undefined): string {
    return node === undefined ? "" : query.slice(node.from, node.to);
  }
}

/** The text exposition format, as far as it is used here. */
export function parseExposition(text: string): Series[] {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return lines.map((line) => {
    const [, metric = "", labels = "", value = ""] = /^([\w:]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, name = "", said = ""]) => [name, said]);
    return { metric, labels: Object.fromEntries(pairs), value: Number(value.replace("+Inf", "Infinity")) };
  });
}

/** Those of the series that a selector chooses. */
export function chosenBy({ metric, labels }: Selector, series: readonly Series[]): Series[] {
  return series.filter((each) => {
    return each.metric === metric && labels.every(({ name, ...matcher }) => isMatch(matcher, each.labels[name] ?? ""));
  });
}

function isMatch({ operator, value }: { operator: string; value: string }, said: string): boolean {
  const matches = operator.includes("~") ? new RegExp(`^(?:${value})$`).test(said) : said === value;
  return operator.startsWith("!") ? !matches : matches;
}

function selectorAt(node: SyntaxNode, query: string): Selector {
  const said = (of: SyntaxNode | undefined) => (of === undefined ? "" : query.slice(of.from, of.to));
  const [identifier, matchers] = childrenOf(node);
  const labels = childrenOf(matchers).map((matcher) => {
    const [name, operator, value] = childrenOf(matcher);
    return { name: said(name), operator: said(operator), value: said(value).slice(1, -1) };
  });
  return { metric: said(identifier), labels };
}

function withoutVariables(text: string): string {
  return VARIABLES.reduce((query, [name, value]) => query.replaceAll(name, value), text);
}

function nameOf({ metric, labels }: Series): string {
  return `${metric}${JSON.stringify(labels)}`;
}

function childrenOf(node: SyntaxNode | undefined): SyntaxNode[] {
  const children: SyntaxNode[] = [];
  for (let child = node?.firstChild; child; child = child.nextSibling) children.push(child);
  return children;
}

/** The first of this name, in a node or below it. */
function descend(node: SyntaxNode | undefined, name: string): SyntaxNode | undefined {
  if (node === undefined || node.name === name) return node;
  for (const child of childrenOf(node)) {
    const found = descend(child, name);
    if (found !== undefined) return found;
  }
  return undefined;
}
