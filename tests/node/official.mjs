// OpenAI's and Anthropic's own JavaScript clients. Prints one JSON object.
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

const [, , base] = process.argv;
const openai = new OpenAI({ apiKey: 'any', baseURL: `${base}/v1`, maxRetries: 0 });
const anthropic = new Anthropic({ apiKey: 'any', baseURL: base, maxRetries: 0 });
const hi = [{ role: 'user', content: 'Hi' }];
const failure = async promise => promise.then(() => null, error => ({ status: error.status, name: error.constructor.name }));

const completion = await openai.chat.completions.stream({ model: 'a', messages: hi }).finalChatCompletion();
const whole = await openai.chat.completions.create({ model: 'a', messages: hi });
const response = await openai.responses.stream({ model: 'a', input: 'Hi' }).finalResponse();
const message = await anthropic.messages.stream({ model: 'a', max_tokens: 9, messages: hi }).finalMessage();
const models = [];
for await (const model of openai.models.list()) models.push(model.id);

console.log(
  JSON.stringify({
    completion: completion.choices[0].message.content,
    whole: whole.choices[0].message.content,
    usage: whole.usage.total_tokens,
    response: response.output_text,
    message: message.content.map(block => block.text).join(''),
    requestId: Boolean(message._request_id ?? whole._request_id),
    models,
    unknown: [
      await failure(openai.chat.completions.create({ model: 'b', messages: hi })),
      await failure(openai.responses.create({ model: 'b', input: 'Hi' })),
      await failure(anthropic.messages.create({ model: 'b', max_tokens: 9, messages: hi })),
    ],
  }),
);
