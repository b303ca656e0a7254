/** Shell completion: scripts made from the commands, so that they know what the command line knows. No word is asked of an edge. */
import { type Command, GLOBAL_OPTIONS, type Option } from "./command.ts";

export const SHELLS = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof SHELLS)[number];

/** What can follow the words that were typed, one a line: `words`, then a tab and what it is for. */
interface Words {
  /** `""` for the first word, `receipts` for what may follow it, `receipts show` for its options. */
  readonly after: string;
  readonly words: readonly (readonly [word: string, about: string])[];
}

export function completionScript(shell: Shell, commands: readonly Command[]): string {
  const table = [...firstWords(commands), ...optionWords(commands)];
  if (shell === "bash") return bash(table);
  return shell === "zsh" ? zsh(table) : fish(table);
}

function firstWords(commands: readonly Command[]): Words[] {
  const firsts = [...new Set(commands.map(({ name }) => name.split(" ")[0] ?? ""))];
  const about = (first: string) => commands.find(({ name }) => name === first)?.summary ?? `${first} …`;
  return [
    { after: "", words: firsts.map((first) => [first, about(first)]) },
    ...firsts.flatMap((first) => {
      const seconds = commands.filter(({ name }) => name.startsWith(`${first} `));
      const words = seconds.map(({ name, summary }) => [name.slice(first.length + 1), summary] as const);
      return words.length === 0 ? [] : [{ after: first, words }];
    }),
  ];
}

function optionWords(commands: readonly Command[]): Words[] {
  return commands.map(({ name, options }) => ({
    after: `${name} -`,
    words: Object.entries({ ...options, ...GLOBAL_OPTIONS } as Record<string, Option>).map(
      ([option, { about }]) => [`--${option}`, about] as const,
    ),
  }));
}

function bash(table: readonly Words[]): string {
  const cases = table.map(({ after, words }) => `    '${after}') echo '${words.map(([word]) => word).join(" ")}';;`);
  return `# keycard: put this into ~/.bashrc:  source <(keycard completion bash)
_keycard_words() {
  case "$1" in
${cases.join("\n")}
  esac
}
_keycard() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words=() word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ $word == -* ]] || words+=("$word"); done
  local first="\${words[0]}" two="\${words[0]} \${words[1]}" found=
  if [[ $current == -* ]]; then
    found="$(_keycard_words "$two -")"
    [[ -n $found ]] || found="$(_keycard_words "$first -")"
  elif [[ \${#words[@]} -lt 2 ]]; then
    found="$(_keycard_words "$first")"
  fi
  COMPREPLY=($(compgen -W "$found" -- "$current"))
}
complete -F _keycard keycard
`;
}

function zsh(table: readonly Words[]): string {
  const described = (words: Words["words"]) =>
    words.map(([word, about]) => quoted(`${word}:${about.replaceAll(":", "\\:")}`)).join(" ");
  const cases = table.map(({ after, words }) => `    ${quoted(after)}) found=(${described(words)});;`);
  return `#compdef keycard
# keycard: put this into ~/.zshrc:  source <(keycard completion zsh)
_keycard_words() {
  found=()
  case "$1" in
${cases.join("\n")}
  esac
}
_keycard() {
  local -a found given
  given=(\${\${words[2,CURRENT-1]}:#-*})
  if [[ $words[CURRENT] == -* ]]; then
    _keycard_words "$given[1] $given[2] -"
    (( $#found )) || _keycard_words "$given[1] -"
  elif (( $#given < 2 )); then
    _keycard_words "$given[1]"
  fi
  (( $#found )) && _describe keycard found
}
compdef _keycard keycard
`;
}

function fish(table: readonly Words[]): string {
  const lines = table.flatMap(({ after, words }) => words.map(([word, about]) => fishLine(after, word, about)));
  return `# keycard: put this into ~/.config/fish/config.fish:  keycard completion fish | source
function __keycard_after
    set -l given (commandline -opc | string match -v -- '-*')
    test "$given[2..]" = "$argv"
end
function __keycard_in
    set -l given (commandline -opc | string match -v -- '-*')
    string match -q -- "$argv" "$given[2..]"; or string match -q -- "$argv *" "$given[2..]"
end
complete -c keycard -f
${lines.join("\n")}
`;
}

function fishLine(after: string, word: string, about: string): string {
  if (!after.endsWith(" -")) return `complete -c keycard -n '__keycard_after ${after}' -a ${word} -d ${quoted(about)}`;
  return `complete -c keycard -n '__keycard_in ${after.slice(0, -2)}' -l ${word.slice(2)} -d ${quoted(about)}`;
}

/** For a shell; quotes in our own texts become typographic ones, which needs no escaping in any of them. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "’")}'`;
}
