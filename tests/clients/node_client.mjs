// The `openai` package of Node against a gateway: node node_client.mjs http://127.0.0.1:8000/v1
// Prints one JSON object with what it has seen; tests/test_openai_node.py compares.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 2, timeout: 60_000 });
const seen = {};
const asks = (params) => ({ sevenfold: { params } });
const messages = [{ role: "user", content: "hello" }];

const models = [];
for await (const one of client.models.list()) models.push(one.id);
seen.models = models;

const whole = await client.chat.completions.create({ model: "echo", messages });
seen.chat = whole.choices[0].message.content;

const chunks = await client.chat.completions.create({
  model: "teller", messages, stream: true, stream_options: { include_usage: true }, ...asks({ say: ["one ", "two"] }),
});
seen.chatStream = "";
for await (const one of chunks) {
  seen.chatStream += one.choices[0]?.delta?.content ?? "";
  if (one.usage) seen.hasUsage = true;
}

const helper = client.chat.completions.stream({ model: "echo", messages });
seen.chatHelper = (await helper.finalChatCompletion()).choices[0].message.content;

const response = await client.responses.create({ model: "echo", input: "hello" });
seen.response = [response.status, response.output_text];

const events = [];
for await (const one of client.responses.stream({ model: "simulator", input: "hello" })) events.push(one.type);
seen.order = [...new Set(events)];

// Cut, then resumed after the last number.
const say = Array.from({ length: 30 }, (_, number) => `${number} `);
const cut = await client.responses.create({
  model: "teller", input: "x", stream: true, background: true, ...asks({ say, pause: 0.03 }),
});
let id = "", last = 0, text = "";
for await (const one of cut) {
  last = one.sequence_number;
  if (one.type === "response.created") id = one.response.id;
  if (one.type === "response.output_text.delta") {
    text += one.delta;
    if (one.delta === "10 ") break;
  }
}
for await (const one of await client.responses.retrieve(id, { stream: true, starting_after: last })) {
  if (one.type === "response.output_text.delta") text += one.delta;
}
seen.resumed = text === say.join("");

const started = await client.responses.create({
  model: "teller", input: "x", background: true, ...asks({ say, pause: 0.2 }),
});
seen.background = [started.status];
seen.background.push((await client.responses.cancel(started.id)).status);

let polled = await client.responses.create({ model: "careful", input: "x", background: true, ...asks({ seconds: 1 }) });
while (polled.status === "queued" || polled.status === "in_progress") {
  await new Promise((resolve) => setTimeout(resolve, 200));
  polled = await client.responses.retrieve(polled.id);
}
seen.polled = polled.status;

const first = await client.responses.create({ model: "clerk", input: "my name is Ada" });
const second = await client.responses.create({ model: "clerk", input: "who am I", previous_response_id: first.id });
seen.inputItems = [];
for await (const one of client.responses.inputItems.list(second.id, { order: "asc" })) seen.inputItems.push(one.role);

seen.errors = [];
for (const body of [{ model: "echo", messages, n: 2 }, { model: "nobody", messages }, { model: "hopeless", messages }]) {
  try {
    await client.chat.completions.create(body);
  } catch (error) {
    seen.errors.push([error.constructor.name, error.status, error.param ?? null]);
  }
}
const keyed = { headers: { "Idempotency-Key": "node-once" } };
const [one, two] = [
  await client.chat.completions.create({ model: "echo", messages }, keyed),
  await client.chat.completions.create({ model: "echo", messages }, keyed),
];
seen.idempotent = one.id === two.id;

console.log(JSON.stringify(seen));
