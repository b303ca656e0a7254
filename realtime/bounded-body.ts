/** Reads what another server answers, within a limit. */
export async function readBounded(response: Response, limit: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of response.body ?? []) {
    text += decoder.decode(chunk as Uint8Array, { stream: true });
    if (text.length > limit) throw new Error("the answer is too large");
  }
  return text + decoder.decode();
}
