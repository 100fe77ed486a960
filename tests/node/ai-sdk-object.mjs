// The AI SDK's objects: its useObject in a React without a browser, and its streamObject. The last line is a JSON object.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { experimental_useObject as useObject } from '@ai-sdk/react';
import { jsonSchema, streamObject } from 'ai';
import { act, createElement } from 'react';
import { create } from 'react-test-renderer';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const warn = console.error; // react-test-renderer says that it is deprecated
console.error = (...said) => String(said[0]).includes('deprecated') || warn(...said);

const [, , base, what] = process.argv;

const description = {
  type: 'object',
  properties: { title: { type: 'string' }, steps: { type: 'array', items: { type: 'string' } } },
  required: ['title', 'steps'],
  additionalProperties: false,
};
const schema = jsonSchema(description, {
  validate: value =>
    typeof value?.title === 'string' && Array.isArray(value.steps)
      ? { success: true, value }
      : { success: false, error: new Error('it does not fit') },
});

// What a page shows and is told; `leave` says when it stops.
async function page(input, leave = () => false) {
  const seen = [];
  const told = {};
  let hook;
  function Page() {
    hook = useObject({
      api: `${base}/v1/ai-sdk/object`,
      id: what,
      schema,
      onFinish: event => Object.assign(told, { finished: event.object ?? null, invalid: event.error?.message ?? null }),
      onError: error => Object.assign(told, { failed: error.message }),
    });
    if (hook.object !== undefined) {
      if (!seen.length) console.log('begun'); // whoever runs this lets the answer go on
      seen.push(hook.object);
    }
    return null;
  }
  await act(async () => void create(createElement(Page)));
  let submitting;
  await act(async () => void (submitting = hook.submit(input)));
  while (!('finished' in told || 'failed' in told)) {
    await act(async () => new Promise(resolve => setImmediate(resolve)));
    if (leave(seen)) {
      await act(async () => hook.stop());
      break;
    }
  }
  await act(async () => submitting);
  return { seen, ...told, error: hook.error?.message ?? null, isLoading: hook.isLoading };
}

const input = { model: 'a', prompt: 'A recipe', schema: description };

const doings = {
  use: () => page(input),
  text: () => page('A recipe'),
  leave: () => page(input, seen => seen.length > 0),
  async stream() {
    const provider = createOpenAICompatible({
      name: 'here',
      baseURL: `${base}/v1`,
      apiKey: 'any',
      supportsStructuredOutputs: true,
      includeUsage: true,
    });
    const { partialObjectStream, object, usage } = streamObject({ model: provider('a'), schema, prompt: 'A recipe', maxRetries: 0 });
    const seen = [];
    for await (const partial of partialObjectStream) seen.push(partial);
    return { seen, object: await object, usage: (await usage).totalTokens };
  },
};

console.log(JSON.stringify(await doings[what]()));
process.exit(0); // React's scheduler would go on waiting
