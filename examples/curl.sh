#!/bin/sh
# The list of models, an answer under a budget, and the same answer as a stream.
#
#   sh examples/curl.sh
set -eu
url=${PONDER_URL:-http://127.0.0.1:8000}

ask() {
  curl --silent --show-error --fail-with-body --no-buffer "$url$1" \
    -H "Authorization: Bearer ${PONDER_API_KEY:-none}" -H 'Content-Type: application/json' ${2:+-d "$2"}
  echo
}

ask /v1/models
ask /v1/chat/completions '{"model": "tiny", "temperature": 0, "thinking_token_budget": 64,
  "messages": [{"role": "user", "content": "What is 17 + 25 - 9?"}]}'
ask /v1/chat/completions '{"model": "tiny", "temperature": 0, "thinking_token_budget": 64, "stream": true,
  "messages": [{"role": "user", "content": "What is 17 + 25 - 9?"}]}'
