// Reads a Sevenfold stream to its end, however often the connection is cut. For browsers and Node ≥ 18, without
// dependencies. (EventSource cannot do it: it sends no POST.)

// Milliseconds between two attempts to connect; doubled from the first to the longest.
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 5000;

const PASSING = [429, 502, 503, 504];

/**
 * Sends a request and calls back with the answer as it arrives.
 *
 * `url` is that of `/api/agent/stream`, `body` is `{query, agent?, params?}`. Callbacks:
 * - `onOpen({location})`: connected, for the first time or again; a POST to `${location}/cancel` stops the run (with
 *   `?token=…` if the address has a run token).
 * - `onChunk({chunk, index})`: the next piece of the answer; each comes once, in order.
 * - `onReset({attempt, index})`: a new attempt starts; discard all chunks so far.
 * - `onProgress({progress, note})`: in percent.
 * - `onCut({title, pause})`: the connection is gone; the next attempt comes in `pause` milliseconds.
 * - `onDone({status, usage?, …})`: the end, `completed` or `cancelled`.
 * - `onError({title, detail?, status?, …})`: it failed for good, with this problem (RFC 9457).
 *
 * `signal` (an AbortSignal) ends the reading without a word; the run goes on. A connection that is silent for
 * `silence` seconds counts as cut; after `patience` seconds in which the server could not be reached, `onError` is
 * notified.
 *
 * The promise is fulfilled when it is over, either way. It is rejected with what your functions throw.
 */
export async function readStream(url, body, options = {}) {
  const callbacks = {
    open: options.onOpen,
    chunk: options.onChunk,
    reset: options.onReset,
    progress: options.onProgress,
    cut: options.onCut,
    done: options.onDone,
    error: options.onError,
  };
  for await (const { kind, data } of events(new URL(url, globalThis.location?.href), body, options)) {
    callbacks[kind]?.(data);
    if (kind === "done" || kind === "error" || options.signal?.aborted) return;
  }
}

/** Everything that happens until `done` or `error`, as `{kind, data}`, over as many connections as it takes. */
async function* events(url, body, { signal, headers = {}, patience = 60, silence = 30 }) {
  const start = {
    method: "POST",
    body: JSON.stringify(body),
    headers: { ...headers, "Content-Type": "application/json", "Idempotency-Key": newKey() },
  };
  let location = null;
  let lastId = null;
  let pause = FIRST_PAUSE;
  let lostAt = null;
  while (!signal?.aborted) {
    const goOn = { headers: lastId === null ? headers : { ...headers, "Last-Event-ID": lastId } };
    try {
      for await (const event of connection(location ? resumeAt(location, url) : url, location ? goOn : start, silence * 1000, signal)) {
        lostAt = null;
        if (event.kind === "open") location = event.data.location;
        else pause = FIRST_PAUSE;
        lastId = event.id ?? lastId;
        yield event;
      }
    } catch (cut) {
      if (!(cut instanceof Cut)) throw cut;
      lostAt ??= Date.now();
      const wait = Math.max(cut.retryAfter, pause * (0.5 + Math.random() / 2));
      pause = Math.min(LONGEST_PAUSE, pause * 2);
      if (signal?.aborted) return;
      if (Date.now() + wait > lostAt + patience * 1000) yield { kind: "error", data: cut.problem };
      yield { kind: "cut", data: { title: cut.problem.title, pause: wait } };
      await sleep(wait, signal);
    }
  }
}

/** The events of one connection, `open` first; throws Cut when it ends before they do. */
async function* connection(url, request, silence, signal) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  signal?.addEventListener("abort", abort);
  let timer = setTimeout(abort, silence);
  try {
    const response = await orCut(
      fetch(url, {
        ...request,
        headers: { ...request.headers, Accept: "text/event-stream" },
        cache: "no-store", // Chrome would have a second reader of the same stream wait for the first
        signal: controller.signal,
      }),
    );
    const problem = await problemOf(response);
    if (problem) {
      yield { kind: "error", data: problem };
      return;
    }
    yield { kind: "open", data: { location: new URL(response.headers.get("Location"), response.url).href } };
    const parser = new EventParser();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await orCut(reader.read());
      if (done) throw new Cut({ title: "The connection was closed before the stream's end" });
      clearTimeout(timer);
      timer = setTimeout(abort, silence);
      for (const event of parser.feed(value)) {
        if (event.kind === "reconnect") throw new Cut({ title: "The server stops" });
        yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
    abort();
  }
}

/** Where the stream goes on. A run token (`?token=`) of the first address is needed there too. */
function resumeAt(location, url) {
  const next = new URL(location);
  const token = url.searchParams.get("token");
  if (token) next.searchParams.set("token", token);
  return next;
}

/** Server-sent events out of bytes, wherever these are cut. */
class EventParser {
  #decoder = new TextDecoder();
  #rest = "";
  #fields = { data: [] };

  *feed(bytes) {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line) {
        this.#field(line);
        continue;
      }
      if (this.#fields.data.length) yield this.#event();
      this.#fields = { data: [] };
    }
  }

  #field(line) {
    const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line); // a comment has no name
    if (name === "data") this.#fields.data.push(value);
    else if (name === "event" || name === "id") this.#fields[name] = value;
  }

  #event() {
    const data = JSON.parse(this.#fields.data.join("\n"));
    return { kind: this.#fields.event ?? (data.reset ? "reset" : "chunk"), data, id: this.#fields.id };
  }
}

/** The connection is gone, or there was none; `retryAfter` is in milliseconds. */
class Cut extends Error {
  constructor(problem, retryAfter = 0) {
    super(problem.title);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** What the network did not do, as a Cut. */
function orCut(promise) {
  return promise.catch((error) => {
    throw new Cut({ title: "The connection is lost", detail: error.message });
  });
}

/** The problem that an answer is, null if it is a stream; throws Cut if it will pass. */
async function problemOf(response) {
  const type = (response.headers.get("Content-Type") ?? "").split(";")[0];
  if (response.status === 200 && type === "text/event-stream") return null;
  const { status } = response;
  const problem =
    type === "application/problem+json"
      ? await orCut(response.json())
      : { title: `The answer is a ${status}, not a stream`, status };
  if (PASSING.includes(status)) throw new Cut(problem, retryAfter(response));
  return problem;
}

/** Milliseconds; 0 if the header is missing or unreadable. */
function retryAfter(response) {
  const value = response.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now() || 0;
}

/** A key under which a start whose answer was lost can be sent again: the answer is the same run's stream. */
function newKey() {
  // crypto.randomUUID is missing on pages without https, and crypto itself in Node 18.
  return Array.from({ length: 3 }, () => Math.random().toString(36).slice(2)).join("-");
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", resolve, { once: true });
  });
}
