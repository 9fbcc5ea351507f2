// The Vercel AI SDK.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const server = { baseURL: `${process.env.PONDER_URL}/v1`, apiKey: "none" };
const ponder = createOpenAICompatible({
  name: "ponder",
  ...server,
  supportsStructuredOutputs: true,
});
const asked = {
  model: ponder("tiny"),
  prompt: "What is 17 + 25 - 9?",
  temperature: 0,
  maxRetries: 0,
  providerOptions: { ponder: { thinking_token_budget: 64 } },
};

const calls = {
  async generate() {
    const { text, reasoningText } = await generateText(asked);
    return { content: text, reasoning: reasoningText };
  },

  async stream() {
    const saw = { content: "", reasoning: "" };
    for await (const part of streamText(asked).fullStream) {
      if (part.type === "text-delta") saw.content += part.text;
      if (part.type === "reasoning-delta") saw.reasoning += part.text;
    }
    return saw;
  },

  async effort() {
    const effort = { ponder: { reasoningEffort: "none" } };
    const { reasoningText } = await generateText({ ...asked, providerOptions: effort });
    return { reasoning: reasoningText ?? "" };
  },

  async object() {
    const schema = z.object({ answer: z.number().int().min(0).max(999) });
    const { output } = await generateText({ ...asked, output: Output.object({ schema }) });
    return { parsed: typeof output.answer };
  },

  async tools() {
    let called = false;
    const { text } = await generateText({
      ...asked,
      prompt: "What is 4821 * 377?",
      stopWhen: stepCountIs(3),
      tools: {
        calculate: tool({
          description: "Computes an expression.",
          inputSchema: z.object({ expression: z.string() }),
          execute: async () => {
            called = true;
            return "1817517";
          },
        }),
      },
    });
    return { content: text, called };
  },

  async responses() {
    const { text } = await generateText({ ...asked, model: createOpenAI(server)("tiny") });
    return { content: text };
  },
};

for (const name of process.argv.slice(2)) {
  const saw = await calls[name]().catch((error) => ({ error: `${error.stack}` }));
  console.log("saw:", JSON.stringify({ [name]: saw }));
}
