// One question under three budgets, then a stream, with OpenAI's client for JavaScript.
//
//   cd examples && npm install && node chat.mjs
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.PONDER_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.PONDER_API_KEY ?? "none",
});
const question = {
  model: "tiny",
  messages: [{ role: "user", content: "What is 17 + 25 - 9?" }],
  temperature: 0,
};

for (const budget of [0, 8, 64]) {
  const reply = await client.chat.completions.create({
    ...question,
    thinking_token_budget: budget,
  });
  const { message, ponder } = reply.choices[0];
  console.log(`budget ${budget}: ${message.content}`);
  console.log(`  ${ponder.thinking_tokens} tokens of thought, ${ponder.end_cause}`);
}

const stream = await client.chat.completions.create({
  ...question,
  thinking_token_budget: 64,
  stream: true,
});
for await (const chunk of stream) {
  const [choice] = chunk.choices;
  process.stdout.write(choice.delta.reasoning ?? choice.delta.content ?? "");
}
console.log();
