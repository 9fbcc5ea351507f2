// Sends requests in OpenAI's format, and reads the stream event by event.

const CHAT = "v1/chat/completions"; // beside the page, wherever a proxy puts both
const NAME = "x-client-request-id"; // names a reply before it has an id

// An error with a message for the user. `status` is HTTP's, or 0 without a response.
export class Failure extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

// The data of each server-sent event, from bytes that may be split anywhere. Skips comments, which
// only fill silence. https://html.spec.whatwg.org/multipage/server-sent-events.html
export async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
        if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // closes the connection, which may be broken already
  }
}

// The parts of a stream's `choice`: {thought}, {answer}, {call}, and at its end {report, finish}.
// A call is a piece {index, id, name, arguments}; the first piece has the name.
function* said({ delta, finish_reason, ponder }) {
  const thought = delta.reasoning ?? delta.reasoning_content;
  if (thought) yield { thought };
  if (delta.content) yield { answer: delta.content };
  for (const { index, id, function: called } of delta.tool_calls ?? [])
    yield { call: { index, id, name: called?.name ?? "", arguments: called?.arguments ?? "" } };
  if (ponder) yield { report: ponder, finish: finish_reason };
}

// One chat as it streams. Yields the parts of choices, each followed by {tokens}, all tokens spent
// so far, and between them {interim}, the probes' answers while a thought goes on. `finish` finds
// the chat by its `name`. Throws Failure, or an AbortError once `signal` stopped it.
export async function* chat(body, key, signal, name) {
  const options = { include_usage: true, continuous_usage_stats: true };
  const asked = { ...body, stream: true, stream_options: options };
  const response = await post(CHAT, asked, key, signal, { [NAME]: name });
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Failure(chunk.error.message);
      if (chunk.ponder) yield { interim: chunk.ponder };
      for (const choice of chunk.choices) yield* said(choice);
      if (chunk.choices.length && chunk.usage) yield { tokens: chunk.usage.completion_tokens };
    }
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof SyntaxError)) throw error;
  }
  throw new Failure("The connection ended before the answer did: ask again.");
}

// One chat, as a whole reply.
export async function whole(body, key, signal) {
  return read(await post(CHAT, body, key, signal));
}

// Finish the thought of the chat with this name. Throws Failure.
export async function finish(name, key) {
  await post(`v1/ponder/${name}/finish`, {}, key);
}

// A unique name for a chat. (A page without TLS has no crypto.randomUUID.)
export function fresh() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return `page-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

// The response of a path beside the page.
export async function get(path, key) {
  return read(await request(path, { headers: { accept: "application/json", ...bearer(key) } }));
}

// The JSON of a response, which may be a proxy's own page or end early. Throws Failure.
async function read(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The answer is not a Ponder server's, or ended early: ask again.");
  }
}

function post(path, body, key, signal, more = {}) {
  const headers = { "content-type": "application/json", ...bearer(key), ...more };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

function bearer(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached: see that it runs, and ask again.");
  }
  if (response.ok) return response;
  const refusal = await response.json().catch(() => ({})); // a proxy's own page is no JSON
  const words = refusal.error?.message ?? `The server answered ${response.status}, without a word.`;
  throw new Failure(words, response.status);
}
