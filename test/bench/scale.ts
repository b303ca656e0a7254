/**
 * Whether the model of infra/scale holds: what one of each thing costs is measured with a few thousand sockets, and what the model then says of two
 * other sizes is held against those sizes, run for real, with people who come, go, renew and are revoked. What it says of sizes that nobody can
 * run here is only worth as much as that. The edge's costs are its throughput on this machine, with everything else standing still.
 */
import { EVERY_SIZE, forecastTable, PEOPLE } from "../../infra/scale/forecast.ts";
import { type Forecast, simulate, type UnitCosts } from "../../infra/scale/model.ts";
import type { Bench, Row } from "./bench.ts";
import { round } from "./distribution.ts";
import { measureEdge } from "./scale-edge.ts";
import { type Counted, NODES, type Stage, startStage } from "./scale-stage.ts";

const SAMPLE = 1_000;
/** A process grows in steps: fewer would not show what one of them weighs. */
const MORE = 3_000;
/** Three times as long as Engine.IO waits between two pings: what an idle socket costs is the small difference of two such spells. */
const QUIET_SECONDS = 76;
/** Before such a spell: what came in a moment ago is still being compiled and collected. */
const SETTLING_SECONDS = 8;
const EVENTS_EACH_SECOND = 50;
const EVENTS = 300;
const NOBODY = 10_000_000;
const CHECKED = [6_000, 12_000];
const STEADY_SECONDS = 15;
/** Of each socket, a second: far more than people do, so that it shows. */
const COMES = 0.01;
const RENEWS = 0.02;
const REVOKED_EACH_SECOND = 10;
/**
 * At which the cost of one kind is measured: the pace of all kinds together at the larger size. All at once each of them would cost a half or a
 * third, as one turn and one system call do for several, and people do not come like that.
 */
const EACH_SECOND = Math.max(...CHECKED) * (COMES + RENEWS);
const TOLERANCE = 0.25;
const WHY_NOT =
  "what an idle socket costs is the small difference of two quiet spells, 1 to 8 µs a second in three runs of a day";

interface Check {
  readonly sockets: number;
  readonly forecast: Forecast;
  /** Predicted to measured. */
  readonly busy: { readonly predicted: number; readonly measured: number; readonly ratio: number };
  readonly megabytes: { readonly predicted: number; readonly measured: number; readonly ratio: number };
  readonly redis_commands: { readonly predicted: number; readonly measured: number; readonly ratio: number };
}

interface ScaleFigures {
  readonly costs: UnitCosts;
  readonly checks: readonly Check[];
}

export const SCALE: Bench = {
  about: "whether the model of infra/scale says what two sizes really use, and what it says of larger ones",
  async run(tell) {
    const stage = await startStage(tell);
    let nodes: Omit<UnitCosts, "edge">;
    const checks: Check[] = [];
    const edge = await measureEdge(tell);
    try {
      nodes = await measureNodes(stage, tell);
      let open = SAMPLE + MORE;
      for (const sockets of CHECKED) {
        tell(`${sockets} sockets for ${STEADY_SECONDS} s`);
        checks.push(await check({ ...nodes, edge }, stage, open, sockets));
        open = sockets;
      }
    } finally {
      await stage.stop();
    }
    const result: ScaleFigures = { costs: { ...nodes, edge }, checks };
    return { result, rows: rowsOf(result), print: () => print(result) };
  },
};

async function measureNodes(stage: Stage, tell: (text: string) => void): Promise<Omit<UnitCosts, "edge">> {
  tell("nodes that have nothing to do");
  const people = range(0, SAMPLE);
  // The compiler has to see it all once.
  await stage.crowd.ask("come", await stage.tokensFor(people));
  await stage.crowd.ask("renew", await stage.tokensFor(people));
  await stage.revoke(range(NOBODY, EVENTS), 0);
  await stage.untilOpen(SAMPLE);
  const full = await stage.memory();
  const withAll = await quiet(stage);
  tell("handshakes, renewals, revocations, one kind after the other");
  const again = await stage.tokensFor(people);
  const seconds = SAMPLE / EACH_SECOND;
  const coming = net(await stage.count(() => stage.crowd.ask("comeSteadily", { shown: again, seconds })), withAll);
  const fresh = await stage.tokensFor(people);
  const renewing = net(await stage.count(() => stage.crowd.ask("renewSteadily", { shown: fresh, seconds })), withAll);
  const events = net(
    await stage.count(() => stage.revoke(range(NOBODY * 2, EVENTS), EVENTS / EVENTS_EACH_SECOND)),
    withAll,
  );
  const hits = net(await stage.count(() => stage.revoke(range(0, EVENTS), EVENTS / EVENTS_EACH_SECOND)), withAll);
  await stage.untilOpen(SAMPLE - EVENTS);
  await stage.crowd.ask("come", await stage.tokensFor(range(0, EVENTS)));
  await stage.untilOpen(SAMPLE);
  tell(`${MORE} more, for what they weigh`);
  await stage.crowd.ask("come", await stage.tokensFor(range(SAMPLE, MORE)));
  await stage.untilOpen(SAMPLE + MORE);
  const socketBytes = ((await stage.memory()) - full) / MORE;
  const withMore = await quiet(stage);
  const socketUs = Math.max(0, (withMore.cpu_us / withMore.seconds - withAll.cpu_us / withAll.seconds) / MORE);
  const commands = Math.max(0, events.redis_commands) / EVENTS;
  return {
    node: {
      idle_us: round(withAll.cpu_us / withAll.seconds / NODES - (SAMPLE / NODES) * socketUs),
      socket_us: round(socketUs),
      handshake_us: round(coming.cpu_us / SAMPLE),
      renewal_us: round(renewing.cpu_us / SAMPLE),
      event_us: round(events.cpu_us / EVENTS / NODES),
      close_us: round(Math.max(0, hits.cpu_us - events.cpu_us) / EVENTS),
      base_bytes: Math.round(full / NODES - (SAMPLE / NODES) * socketBytes),
      socket_bytes: Math.round(socketBytes),
      entry_bytes: 104,
    },
    redis: {
      idle_commands: round(withAll.redis_commands / withAll.seconds / NODES),
      event_commands: round(commands / 2),
      word_commands: round(commands / 2 / NODES),
    },
  };
}

async function quiet(stage: Stage): Promise<Counted> {
  await pause(SETTLING_SECONDS);
  return await stage.count(() => pause(QUIET_SECONDS));
}

/** Runs a size, and what the model says of it. */
async function check(costs: UnitCosts, stage: Stage, open: number, sockets: number): Promise<Check> {
  await stage.crowd.ask("come", await stage.tokensFor(range(open, sockets - open)));
  await stage.untilOpen(sockets);
  const [comes, renews] = [sockets * COMES * STEADY_SECONDS, sockets * RENEWS * STEADY_SECONDS];
  const revoked = REVOKED_EACH_SECOND * STEADY_SECONDS;
  // Those who are revoked stay away, so that nothing else changes.
  const [leaving, coming, renewing] = [
    range(open, revoked),
    range(open + revoked, comes),
    range(0, Math.min(renews, open)),
  ];
  const [shownComing, shownRenewing] = [await stage.tokensFor(coming), await stage.tokensFor(renewing)];
  const counted = await stage.count(() =>
    Promise.all([
      stage.crowd.ask("comeSteadily", { shown: shownComing, seconds: STEADY_SECONDS }),
      stage.crowd.ask("renewSteadily", { shown: shownRenewing, seconds: STEADY_SECONDS }),
      stage.revoke(leaving, STEADY_SECONDS),
    ]),
  );
  const megabytes = (await stage.memory()) / NODES / 1e6;
  await stage.crowd.ask("come", await stage.tokensFor(leaving));
  const each = (count: number) => count / counted.seconds / sockets;
  const habits = {
    handshakes: each(coming.length),
    renewals: each(renewing.length),
    logins: 0,
    revocations: each(revoked),
  };
  const forecast = simulate(costs, { sockets, nodes: NODES, habits, seconds: STEADY_SECONDS, seed: 1 });
  const compare = (predicted: number, measured: number) => {
    return { predicted: round(predicted), measured: round(measured), ratio: round(predicted / measured) };
  };
  return {
    sockets,
    forecast,
    busy: compare(forecast.node.busy * 100, (counted.cpu_us / 1e6 / counted.seconds / NODES) * 100),
    megabytes: compare(forecast.node.megabytes, megabytes),
    redis_commands: compare(forecast.redis_commands_per_second, counted.redis_commands / counted.seconds),
  };
}

/** Without what goes on all the time. */
function net(counted: Counted, quiet: Counted): Counted {
  const share = counted.seconds / quiet.seconds;
  return {
    ...counted,
    cpu_us: counted.cpu_us - quiet.cpu_us * share,
    redis_commands: counted.redis_commands - quiet.redis_commands * share,
  };
}

function rowsOf({ checks }: ScaleFigures): Row[] {
  return checks.map(({ sockets, busy, megabytes, redis_commands }) => ({
    work: `what the model of infra/scale says of ${sockets.toLocaleString("en")} sockets on ${NODES} nodes, relative to what they use: processor, memory, Redis`,
    goal: `within ${TOLERANCE * 100} %`,
    measured: [busy, megabytes, redis_commands].map(({ ratio }) => ratio.toFixed(2)).join(", "),
    ...([busy, megabytes, redis_commands].every(({ ratio }) => Math.abs(ratio - 1) <= TOLERANCE)
      ? { met: true }
      : { met: false, because: WHY_NOT }),
  }));
}

function print({ costs, checks }: ScaleFigures): void {
  console.log(`\nwhat one of each costs\n${JSON.stringify(costs, null, 2)}\n`);
  for (const { sockets, busy, megabytes, redis_commands } of checks) {
    console.log(`  ${sockets} sockets on ${NODES} nodes, predicted and measured, each node:`);
    console.log(`    ${busy.predicted} and ${busy.measured} % of a core`);
    console.log(`    ${megabytes.predicted} and ${megabytes.measured} MB`);
    console.log(`    ${redis_commands.predicted} and ${redis_commands.measured} Redis commands a second`);
  }
  console.log(`\n${forecastTable(costs, EVERY_SIZE, PEOPLE)}\n`);
}

function range(from: number, count: number): number[] {
  return Array.from({ length: Math.round(count) }, (_, index) => from + index);
}

async function pause(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
