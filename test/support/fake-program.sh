#!/bin/sh
# A program that cannot be had here, because it needs an account, an engine or a cluster. Writes down how it was called and what it was told, and
# answers as the real one does in what the deployment looks at. It remembers secrets that are put, and fails when it is told to.
# A call: words, what was on standard input, KEYCARD_IMAGE and KEYCARD_SECRETS, parted by the ASCII separators US, RS and GS.
name="${0##*/}"
input=
case "$*" in
"secret put"* | *"--filename -") input=$(cat) ;;
esac
{
  printf '%s' "$name"
  for word in "$@"; do printf '\037%s' "$word"; done
  printf '\036%s\036%s\036%s\035' "$input" "$KEYCARD_IMAGE" "$KEYCARD_SECRETS"
} >>"$FAKES/calls"
if [ -f "$FAKES/failing" ]; then
  case "$name $*" in
  "$(cat "$FAKES/failing")"*) exit 3 ;;
  esac
fi
case "$name $*" in
"wrangler secret list"*)
  comma=
  printf '['
  for secret in $(cat "$FAKES/secrets" 2>/dev/null); do
    printf '%s{"name":"%s","type":"secret_text"}' "$comma" "$secret"
    comma=,
  done
  printf ']\n'
  ;;
"wrangler secret put"*) echo "$3" >>"$FAKES/secrets" ;;
kubectl*"get secret"*) [ -f "$FAKES/has-secret" ] || exit 1 ;;
esac
