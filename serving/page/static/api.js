// What the page asks of the gateway: its public API under /v1, nothing else.

const ATTEMPTS = 3;
const PAUSE_MS = 300;

/** A reply that is not a success: HTTP status, code and message as the API gives them; status 0 where none came. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? "");
    this.status = status;
    this.code = error?.code ?? "";
  }
}

async function send(path, body, signal, method = "GET") {
  const options = { signal, method, headers: {} };
  if (body) {
    options.method = "POST";
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let reply;
  try {
    reply = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0);
  }
  if (!reply.ok) throw new Refused(reply.status, (await reply.json().catch(() => ({}))).error);
  return reply;
}

/** Who is signed in, what the domain is called, and what may be asked for a start. */
export const readSession = async () => (await send("/v1/session")).json();

/** What was asked, answered and said in a conversation of one's own. */
export const readConversation = async (id) => (await send(`/v1/conversations/${encodeURIComponent(id)}`)).json();

/** An answer that was served, with the version that wrote it and its sources. */
export const readAnswer = async (id) => (await send(`/v1/answers/${encodeURIComponent(id)}`)).json();

/** The chunks of a streamed reply; throws Refused where the stream ends with an error. */
export async function* stream(path, body, signal) {
  const reply = await send(path, { ...body, stream: true }, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (held + value).split("\n\n");
    held = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(503, chunk.error);
      yield chunk;
    }
  }
}

/** Store one reaction; the key makes it count once. */
export const give = (reaction) => persist("/v1/feedback", reaction);

/** Take a reaction back; again is no change. */
export const takeBack = (id) => persist(`/v1/feedback/${encodeURIComponent(id)}`, null, "DELETE");

/** Trying again for a moment while the store is away. */
async function persist(path, body, method) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await (await send(path, body, undefined, method)).json();
    } catch (error) {
      const passing = error instanceof Refused && (error.status === 0 || error.status >= 500);
      if (!passing || attempt === ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}
