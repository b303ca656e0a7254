/** The story for people: aligned, within 96 columns, colour only where it is wanted. */
import { styleText } from "node:util";
import type { Fact, StoryReport, StoryStep } from "./telling.ts";

const COLUMNS = 96;
const INDENT = 15;

export function printStep({ number, title, did, expected, happened, held, took_ms }: StoryStep): void {
  const mark = held ? paint("green", "✓") : paint("red", "✗");
  const time = duration(took_ms);
  const head = `${String(number).padStart(2)}  ${title}`;
  console.log(`\n${mark} ${paint("bold", head.padEnd(COLUMNS - 3 - time.length))} ${paint("dim", time)}`);
  printPart("did", wrap(did, COLUMNS - INDENT));
  printPart("expected", wrap(expected, COLUMNS - INDENT));
  printPart("happened", happened.flatMap(factLines));
}

export function printEnd({ held, took_ms, steps }: StoryReport): void {
  const kept = steps.filter((step) => step.held).length;
  const verdict = held ? paint("green", "Every step held") : paint("red", "The story did not hold");
  console.log(`\n${verdict}: ${kept} of ${steps.length} steps, ${duration(took_ms)}.`);
}

/** Each fact begins on a line of its own, and one that is not as expected is seen at once. */
function factLines({ holds, text }: Fact): string[] {
  if (holds) return wrap(text, COLUMNS - INDENT);
  return wrap(`not as expected: ${text}`, COLUMNS - INDENT).map((line) => paint("red", line));
}

function printPart(label: string, lines: readonly string[]): void {
  for (const [index, line] of lines.entries()) {
    const margin = (index === 0 ? `     ${label}` : "").padEnd(INDENT);
    console.log(`${paint("dim", margin)}${line}`);
  }
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

function duration(ms: number): string {
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** `styleText` itself looks at the stream and at NO_COLOR. */
function paint(style: "green" | "red" | "bold" | "dim", text: string): string {
  return styleText(style, text, { stream: process.stdout });
}
