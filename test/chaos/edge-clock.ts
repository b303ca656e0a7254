/**
 * Goes into the Worker before anything else of it, so that its wall clock can be set. All of its objects live in one isolate on this
 * machine, and so by one clock. Alarms go by workerd's own, which is right.
 */

/** The `POST` that sets it, with a ClockOrder as JSON. */
export const CLOCK_PATH = "/chaos/clock";

export interface ClockOrder {
  /** One that comes after a later one does nothing. */
  readonly turn: number;
  /** From the true time. */
  readonly offMs: number;
}

const TrueDate = Date;
let offMs = 0;
let lastTurn = 0;

class SteppedDate extends TrueDate {
  constructor(...parts: [] | ConstructorParameters<DateConstructor>) {
    if (parts.length === 0) super(SteppedDate.now());
    else super(...parts);
  }

  static override now(): number {
    return TrueDate.now() + offMs;
  }
}

globalThis.Date = SteppedDate as DateConstructor;

type Answer<Rest extends unknown[]> = (request: Request, ...rest: Rest) => Response | Promise<Response>;

/** The Worker's own `fetch`, and beside it the call that sets the clock. */
export function withClock<Rest extends unknown[]>(fetch: Answer<Rest>): Answer<Rest> {
  return async (request, ...rest) => {
    if (new URL(request.url).pathname !== CLOCK_PATH) return await fetch(request, ...rest);
    const order: ClockOrder = await request.json();
    if (order.turn > lastTurn) ({ turn: lastTurn, offMs } = order);
    return new Response(null, { status: 204 });
  };
}
