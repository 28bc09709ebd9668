#!/bin/sh
# word_count: counts the words and lines of a text. The input comes from the environment, so no JSON has to be read;
# the answer holds numbers and fixed texts only, so none has to be escaped.
cat >/dev/null

fail() {
    printf '{"status":"error","error":"%s","retry":false,"logs":[{"level":"error","message":"%s"}]}\n' "$1" "$1"
    exit 0
}

command -v awk >/dev/null || fail "awk is not on the PATH"

case "$DUCTILE_COMMAND" in
health)
    printf '{"status":"ok","result":"healthy"}\n'
    ;;
handle)
    [ -n "${DUCTILE_PAYLOAD_TEXT+there}" ] || fail "payload.text is missing, or longer than 32 KiB"
    # Bytes, whatever the locale: what stands between blanks is a word in any language.
    counted=$(printf '%s' "$DUCTILE_PAYLOAD_TEXT" | LC_ALL=C awk '{ words += NF } END { print NR, words + 0 }')
    lines=${counted% *} words=${counted#* }
    [ -n "$counted" ] || fail "awk could not count the text"
    printf '{"status":"ok","result":"%s word(s) in %s line(s)","events":[%s],"logs":[%s]}\n' "$words" "$lines" \
        "{\"type\":\"text.counted\",\"payload\":{\"lines\":$lines,\"words\":$words}}" \
        "{\"level\":\"info\",\"message\":\"$words word(s) in $lines line(s)\"}"
    ;;
*)
    fail "unknown command (known: handle, health)"
    ;;
esac
