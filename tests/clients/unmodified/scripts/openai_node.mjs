// OpenAI's client for JavaScript.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.PONDER_URL}/v1`,
  apiKey: process.env.PONDER_API_KEY ?? "none",
  maxRetries: 0,
});
const question = "What is 17 + 25 - 9?";
const messages = [{ role: "user", content: question }];
const asked = { model: "tiny", messages, temperature: 0, thinking_token_budget: 64 };

const calls = {
  async chat() {
    const reply = await client.chat.completions.create(asked);
    const { message } = reply.choices[0];
    return {
      content: message.content,
      reasoning: message.reasoning,
      reasoning_tokens: reply.usage.completion_tokens_details.reasoning_tokens,
    };
  },

  async stream() {
    const saw = { content: "", reasoning: "" };
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      for (const choice of chunk.choices) {
        saw.content += choice.delta.content ?? "";
        saw.reasoning += choice.delta.reasoning ?? "";
        saw.cause = choice.ponder?.end_cause;
      }
    }
    return saw;
  },

  async streamHelper() {
    const message = await client.chat.completions.stream(asked).finalMessage();
    return { content: message.content };
  },

  async tools() {
    const runner = client.chat.completions.runTools({
      ...asked,
      messages: [{ role: "user", content: "Calculate 17 + 25 - 9." }],
      tools: [
        {
          type: "function",
          function: {
            name: "calculate",
            description: "Computes an expression.",
            parse: JSON.parse,
            parameters: { type: "object", properties: { expression: { type: "string" } } },
            function: () => "33",
          },
        },
      ],
    });
    return { content: await runner.finalContent() };
  },

  async responses() {
    const reply = await client.responses.create({
      model: "tiny",
      input: question,
      thinking_token_budget: 64,
    });
    return { content: reply.output_text };
  },
};

for (const name of process.argv.slice(2)) {
  const saw = await calls[name]().catch((error) => ({ error: `${error.stack}` }));
  console.log("saw:", JSON.stringify({ [name]: saw }));
}
