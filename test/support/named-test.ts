/** Tests as documents name them: a test that is renamed or goes must not leave a claim behind that nothing shows. */

/** Whether a file has a test of that name, which is neither skipped nor still to be written. A name with `%s` stands for several runs. */
export function hasTest(code: string, name: string): boolean {
  return [`"${name}"`, `\`${name}\``].some((quoted) => {
    const at = code.indexOf(quoted);
    return at >= 0 && /\b(test|it)(\.(for|each|concurrent\.for)(<[^;]*>)?\([^;]*\))?\(\s*$/s.test(code.slice(0, at));
  });
}
