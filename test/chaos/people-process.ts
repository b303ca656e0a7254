/**
 * The process in which the people of a chaos run live, so that they are not held up by what the driver does. It is told what to do by
 * messages, and prints a line of JSON for each report.
 */
import { EdgeClient } from "../../infra/edge-client.ts";
import { Random } from "../support/random.ts";
import { historyFile, type SeenToken } from "./history.ts";
import { type Client, Device, type Place, startThief, tryEverything, Wallet } from "./people.ts";

export interface PeopleSettings {
  readonly edgeUrl: string;
  readonly historyDir: string;
  readonly clients: readonly Client[];
  readonly places: readonly Place[];
  readonly seed: number;
}

/** What the driver may ask for. */
export type Errand = { readonly do: "log out"; readonly client: string } | { readonly do: "try everything" };

/** The session and the token that a client has. */
export type Holding = Pick<SeenToken, "sid" | "jti" | "kid">;

/** What the driver is told. */
export type PeopleReport =
  | {
      readonly kind: "standing";
      /** Who is signed in, and with what. */
      readonly signedIn: Readonly<Record<string, Holding>>;
      /** Sockets that should be open and are not: the client and the node. */
      readonly missing: readonly string[];
    }
  | { readonly kind: "tried" };

const REPORT_MS = 100;
const THEFT_MS = 300;
/** Tokens that are tried at every node in the end. */
const TRIED_AT_MOST = 30;

const settings = await new Promise<PeopleSettings>((resolve) => process.once("message", resolve));
const { edgeUrl, historyDir, clients, places, seed } = settings;
const edge = new EdgeClient({ edgeUrl, adminToken: "" });
const around = { edge, edgeUrl, wallet: new Wallet(), write: historyFile(historyDir, "people") };
const devices = clients.map((client) => new Device(client, around));

process.on("message", (errand: Errand) => void run(errand));
// Started over a channel: when that is gone, nobody is left to tell.
process.once("disconnect", () => process.exit(0));
process.once("SIGTERM", () => process.exit(0));

for (const device of devices) await device.start();
startThief(new Random(seed), places, around, THEFT_MS);
setInterval(() => report(standing()), REPORT_MS);

async function run(errand: Errand): Promise<void> {
  if (errand.do === "log out") await devices.find(({ client }) => client.name === errand.client)?.logOut();
  else {
    await tryEverything(places, around, TRIED_AT_MOST);
    report({ kind: "tried" });
  }
}

function standing(): PeopleReport {
  const signedIn = devices.flatMap(({ client, current }) => {
    return current === undefined ? [] : [[client.name, holdingOf(current)] as const];
  });
  const missing = devices.flatMap(({ client, missing: nodes }) => nodes.map((node) => `${client.name} on ${node}`));
  return { kind: "standing", signedIn: Object.fromEntries(signedIn), missing };
}

function holdingOf({ sid, jti, kid }: SeenToken): Holding {
  return { sid, jti, kid };
}

function report(what: PeopleReport): void {
  console.log(JSON.stringify(what));
}
