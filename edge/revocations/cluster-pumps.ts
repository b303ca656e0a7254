/**
 * Two pumps for every cluster, one that brings it the events and one that collects its receipts: a slow cluster must not delay
 * another. They are made at the first use, since wrong settings are for requests to complain of.
 */
import { signReceiptQuery } from "#contract/cluster";
import { signRevocation } from "#contract/revocation";
import { type ClusterConfig, readConfig } from "../config.ts";
import { randomName } from "../identifiers.ts";
import { signingKey } from "../keys/issuer.ts";
import type { Chronicle } from "./chronicle.ts";
import { Cluster, type SignedQuestion } from "./cluster.ts";
import { Delivery, type DeliveryLog, type LoggedEvent } from "./delivery.ts";
import type { DeliveryTable } from "./delivery-table.ts";
import { revocationIn } from "./event-table.ts";
import { type ReceiptBooks, ReceiptCollector } from "./receipt-collector.ts";
import type { Receipts } from "./receipts.ts";

interface Pumps {
  readonly cluster: string;
  readonly delivery: Delivery;
  readonly collector: ReceiptCollector;
}

export class ClusterPumps {
  readonly #env: Env;
  readonly #deliveries: DeliveryTable;
  readonly #receipts: Receipts;
  readonly #chronicle: Chronicle;
  readonly #changed: () => void;
  #pumps: readonly Pumps[] | undefined;

  /** @param changed called when something changed that the alarm may depend on, or somebody waits for */
  constructor(env: Env, deliveries: DeliveryTable, receipts: Receipts, chronicle: Chronicle, changed: () => void) {
    this.#env = env;
    this.#deliveries = deliveries;
    this.#receipts = receipts;
    this.#chronicle = chronicle;
    this.#changed = changed;
  }

  /** By cluster, up to where everything is delivered. */
  through(): ReadonlyMap<string, number> {
    return new Map(this.#all().map(({ cluster, delivery }) => [cluster, delivery.through]));
  }

  deliveries(): readonly Delivery[] {
    return this.#all().map(({ delivery }) => delivery);
  }

  collectors(): readonly ReceiptCollector[] {
    return this.#all().map(({ collector }) => collector);
  }

  /** Somebody waits for the receipt of this event. `until` in milliseconds. */
  hurry(seq: number, until: number): void {
    for (const { cluster, collector } of this.#all()) {
      this.#receipts.hurry(cluster, seq);
      collector.hurry(until);
    }
  }

  #all(): readonly Pumps[] {
    this.#pumps ??= readConfig(this.#env).clusters.map((config) => this.#make(config));
    return this.#pumps;
  }

  #make(config: ClusterConfig): Pumps {
    const { id } = config;
    const cluster = new Cluster(config);
    const deliver = async (event: LoggedEvent) => await cluster.push(await this.#sign(event, id));
    const delivery = new Delivery({ id, deliver }, this.#deliveryLog(), this.#deliveries.cursor(id));
    const ask = async (ids: readonly string[], waitMs: number) =>
      await cluster.receipts(await this.#question(ids, id), waitMs);
    return { cluster: id, delivery, collector: new ReceiptCollector({ id, ask }, this.#receiptBooks(delivery)) };
  }

  /** What a cluster has taken it can be asked about. */
  #deliveryLog(): DeliveryLog {
    const books = this.#deliveries.log(this.#changed);
    return {
      ...books,
      delivered: (cluster, event) => {
        books.delivered(cluster, event);
        this.#receipts.taken(cluster, event.seq);
        this.#chronicle.delivered(cluster, event, Date.now());
      },
      failed: (cluster, event, error) => {
        books.failed(cluster, event, error);
        this.#chronicle.undelivered(cluster);
      },
    };
  }

  #receiptBooks(delivery: Delivery): ReceiptBooks {
    return {
      due: (cluster, now, limit) => this.#receipts.due(cluster, now, limit),
      nextDue: (cluster) => this.#receipts.nextDue(cluster),
      heard: (cluster, asked, receipts) => {
        this.#chronicle.asked(cluster, "answered");
        const lost = this.#receipts.heard(cluster, asked, receipts);
        if (lost !== undefined) delivery.again(lost);
      },
      unheard: (cluster, asked, error) => {
        this.#chronicle.asked(cluster, "failed");
        this.#receipts.unheard(cluster, asked, error);
      },
      changed: this.#changed,
    };
  }

  async #sign(event: LoggedEvent, cluster: string): Promise<string> {
    return await signRevocation(revocationIn(event), this.#envelope(cluster), await signingKey(this.#env));
  }

  async #question(ids: readonly string[], cluster: string): Promise<SignedQuestion> {
    const envelope = { ...this.#envelope(cluster), nonce: randomName(128) };
    return { ...envelope, token: await signReceiptQuery(ids, envelope, await signingKey(this.#env)) };
  }

  #envelope(audience: string) {
    return { issuer: readConfig(this.#env).issuer, audience, issuedAt: Math.floor(Date.now() / 1000) };
  }
}
