/** The public keys, which every node, every resource server and every doctor asks for, beside a Worker that answers with a constant. */
import type { Bench, Row } from "./bench.ts";
import { spreadText } from "./distribution.ts";
import { compareLoad, type Load, printLoads, withWorkers } from "./edge-load.ts";

const AT_ONCE = 16;
const LEAST_RATIO = 0.7;

export const JWKS: Bench = {
  about: "key sets per second, beside a bare Worker that answers with a constant",
  async run(tell) {
    const load = await withWorkers(tell, ({ url: { keycard, bare }, call }) => {
      const callers = (url: string) => Array.from({ length: AT_ONCE }, () => () => call("GET", url));
      return compareLoad(
        { keycard: callers(`${keycard}/.well-known/jwks.json`), bare: callers(`${bare}/jwks.json`) },
        tell,
      );
    });
    return { result: { load }, rows: [rowOf(load)], print: () => printLoads("Key sets", [load]) };
  },
};

function rowOf({ at_once, ratio, per_second }: Load<"keycard" | "bare">): Row {
  return {
    work: `key sets a second, ${at_once} at once, relative to a bare Worker with a constant answer`,
    goal: `≥ ${LEAST_RATIO}`,
    measured: `${spreadText(ratio.keycard)} (${per_second.keycard.median.toFixed(0)}/s)`,
    met: ratio.keycard.median >= LEAST_RATIO,
  };
}
