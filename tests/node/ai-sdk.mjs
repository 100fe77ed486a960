// The AI SDK's own chat, without React: what useChat does with what the server sends. Its last line is a JSON object.
import { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } from 'ai';

const [, , base, what] = process.argv;

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  pushMessage = message => void this.messages.push(message);
  popMessage = () => void this.messages.pop();
  replaceMessage = (index, message) => void (this.messages[index] = message);
  snapshot = value => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor({ messages = [], ...options }) {
    super({ state: Object.assign(new State(), { messages }), ...options });
  }

  // Return when the assistant has said something.
  async spoken() {
    while (!this.messages.some(message => message.role === 'assistant' && message.parts.some(part => part.text))) {
      await new Promise(resolve => setImmediate(resolve));
    }
  }
}

const transport = new DefaultChatTransport({ api: `${base}/v1/ai-sdk/chat`, body: { model: 'a' } });
const ended = {};
const options = { id: 'chat 1', transport, onFinish: event => Object.assign(ended, event) };
const shown = chat => ({
  status: chat.status,
  error: chat.error?.message ?? null,
  messages: chat.messages,
  finishReason: ended.finishReason ?? null,
  isError: ended.isError ?? null,
});

const doings = {
  async say() {
    const chat = new Chat(options);
    await chat.sendMessage({
      text: 'Hi',
      files: [{ type: 'file', mediaType: 'image/png', url: 'data:image/png;base64,cG5n' }],
    });
    return shown(chat);
  },
  async tool() {
    const chat = new Chat({
      ...options,
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall({ toolCall }) {
        console.log('called'); // from now on the agent answers otherwise
        chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { seen: toolCall.input } });
      },
    });
    await chat.sendMessage({ text: 'Look' });
    while (chat.status !== 'ready' || chat.messages.at(-1).parts.at(-1).type !== 'text') {
      if (chat.error) break;
      await new Promise(resolve => setImmediate(resolve));
    }
    return shown(chat);
  },
  // Reads until it has some text, leaves, and comes back as a page that is loaded again: with the user's message alone.
  async resume() {
    const first = new Chat(options);
    const sending = first.sendMessage({ text: 'Hi' });
    await first.spoken();
    await first.stop();
    await sending;
    const second = new Chat({ ...options, messages: first.messages.slice(0, 1) });
    const resuming = second.resumeStream();
    await second.spoken();
    console.log('back'); // whoever runs this lets the answer go on
    await resuming;
    const third = new Chat({ ...options, messages: second.messages });
    await third.resumeStream(); // nothing is under way any more
    return { ...shown(second), again: third.messages.length };
  },
};

console.log(JSON.stringify(await doings[what]()));
