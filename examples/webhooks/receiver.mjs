// Receives Sevenfold's webhooks. It needs nothing but Node ≥ 18; copy it and change it.
//
// WEBHOOK_SECRET=whsec_… PORT=9000 node examples/webhooks/receiver.mjs

import { createHmac, timingSafeEqual } from "node:crypto";
import { realpathSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const TOLERANCE_SECONDS = 300;
const LARGEST_BODY = 10_000_000;
const REMEMBERED = 100_000;
const NAMES = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/** A delivery that is not genuine, with the reason. */
export class RefusedError extends Error {}

/**
 * Checks a delivery that arrived at `now` (unix seconds), and returns what is the same whenever it comes again.
 *
 * `headers` are by lower-case name, as Node has them; `body` is a Buffer. With `bodyOnly`, a delivery without any of
 * the `webhook-` headers is accepted by its `X-Webhook-Signature`. That is for senders who know no other: it lets
 * everybody who ever saw a delivery send it again. Throws RefusedError.
 */
export function verify(secret, headers, body, now, { bodyOnly = false } = {}) {
  if (bodyOnly && !NAMES.some((name) => name in headers)) {
    return verifyBody(secret, headers["x-webhook-signature"] ?? "", body);
  }
  const [id, timestamp, signatures] = NAMES.map((name) => headers[name] ?? "");
  // A full stop in the id could move the borders between id, time and body.
  if (!/^[!-\-/-~]+$/.test(id) || !/^[0-9]{1,12}$/.test(timestamp)) {
    throw new RefusedError("webhook-id or webhook-timestamp is missing or malformed");
  }
  if (Math.abs(now - Number(timestamp)) > TOLERANCE_SECONDS) {
    throw new RefusedError("webhook-timestamp is too old or in the future");
  }
  const mac = createHmac("sha256", key(secret)).update(`${id}.${timestamp}.`).update(body).digest("base64");
  // While the sender's secret changes, there are two; one that matches is enough.
  if (!signatures.split(" ").some((signature) => equal(`v1,${mac}`, signature))) {
    throw new RefusedError("webhook-signature is missing or does not match");
  }
  return id;
}

function verifyBody(secret, signature, body) {
  if (!equal(`sha256=${createHmac("sha256", secret).update(body).digest("hex")}`, signature)) {
    throw new RefusedError("X-Webhook-Signature is missing or does not match");
  }
  return signature; // no id is signed; the same body counts as the same delivery
}

/** In constant time; `timingSafeEqual` throws when the lengths differ. */
function equal(expected, given) {
  const [left, right] = [Buffer.from(expected), Buffer.from(given)];
  return left.length === right.length && timingSafeEqual(left, right);
}

/** What follows `whsec_` is base64 of 24 to 64 bytes; any other secret is used as it is. */
function key(secret) {
  const text = secret.startsWith("whsec_") ? secret.slice("whsec_".length).replace(/=+$/, "") : "";
  // Node decodes whatever it can, so what is no base64 must be found out before.
  if (!/^[A-Za-z0-9+/]+$/.test(text) || text.length % 4 === 1) return Buffer.from(secret);
  const decoded = Buffer.from(text, "base64");
  return decoded.length >= 24 && decoded.length <= 64 ? decoded : Buffer.from(secret);
}

// Yours keeps what it has handled in its database, in the transaction that does the work: memory ends with the
// process, and a delivery can come again for days.
const handled = new Set();

/** Handles a delivery unless it has been. Remembered only afterwards: one that failed shall come again. */
function take(delivery, body) {
  if (handled.has(delivery)) {
    console.log(`again ${delivery}`);
    return;
  }
  console.log(`received ${delivery} ${body}`); // your work, or its way into your queue
  handled.add(delivery);
  if (handled.size > REMEMBERED) handled.delete(handled.values().next().value);
}

/** 204 for what is handled; else a status after which Sevenfold tries again, and the reason for its log. */
async function receive(request, response, secret, bodyOnly) {
  if (request.method !== "POST") return response.writeHead(405).end();
  const length = request.headers["content-length"];
  if (length === undefined) return response.writeHead(411).end("a Content-Length is needed");
  if (Number(length) > LARGEST_BODY) return response.writeHead(413).end(`more than ${LARGEST_BODY} bytes`);
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  // Verify the bytes as they came: JSON that was read and written again has other ones.
  const body = Buffer.concat(pieces);
  try {
    take(verify(secret, request.headers, body, Date.now() / 1000, { bodyOnly }), body);
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
    return response.writeHead(401, { "Content-Type": "text/plain" }).end(error.message);
  }
  return response.writeHead(204).end();
}

/** Listens on loopback; put what speaks TLS before it. */
function main() {
  const secret = process.env.WEBHOOK_SECRET;
  if (!secret) throw new Error("WEBHOOK_SECRET must hold the secret.");
  const bodyOnly = process.env.ACCEPT_BODY_ONLY === "1";
  const server = createServer((request, response) => {
    receive(request, response, secret, bodyOnly).catch((error) => {
      console.error(error); // a connection that broke, or your work that failed: it will come again
      if (!response.headersSent) response.writeHead(500).end();
    });
  });
  server.listen(Number(process.env.PORT ?? 9000), "127.0.0.1", () => {
    console.log(`listening on port ${server.address().port}`);
  });
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) main();
