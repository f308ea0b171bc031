/**
 * A conversation as tokens, of which only the template's own are special.
 *
 * A message that holds the name of a special token, such as the end of a turn, must not get that
 * token, or whoever writes it could open a turn of the system. Such names are taken out of the
 * messages before the template renders them, and put back as plain text where they were. Without
 * any, which is the rule, the rendered text is encoded at once: cutting it at the messages would
 * change how words are merged there.
 */
import type { ChatMessage } from './chat-template.js';

/** What {@link encodeChat} needs of a tokenizer. */
export interface ChatParts {
  /** Renders messages by the model's template. */
  readonly render: (messages: readonly ChatMessage[]) => string;
  /** Names of special tokens; none empty. */
  readonly specialNames: readonly string[];
  /** Tokens of a text, nothing added. */
  readonly encode: (text: string, options: { readonly parseSpecial: boolean }) => readonly number[];
}

/** Noncharacters, which no text contains, around the index of a name. */
const [OPEN, CLOSE] = ['\ufdd0', '\ufdd1'];
const PLACEHOLDER = new RegExp(`${OPEN}(\\d+)${CLOSE}`);

/** Tokens of `messages`; see the notes of this module. */
export function encodeChat(
  messages: readonly ChatMessage[],
  { render, specialNames, encode }: ChatParts,
): readonly number[] {
  const longestFirst = [...specialNames].sort((a, b) => b.length - a.length);
  const escaped = longestFirst.map((name) => name.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
  const names = new RegExp(escaped.join('|') || '(?!)', 'g');
  const found: string[] = [];
  const hide = (name: string): string => `${OPEN}${found.push(name) - 1}${CLOSE}`;
  const text = render(
    messages.map(({ role, content }) => ({ role, content: content.replaceAll(names, hide) })),
  );
  if (found.length === 0) return encode(text, { parseSpecial: true });
  // Every second part is the index of a name.
  return text.split(PLACEHOLDER).flatMap((part, index) => {
    const isName = index % 2 === 1;
    const own = isName ? (found[Number(part)] ?? '') : part;
    return own === '' ? [] : encode(own, { parseSpecial: !isName });
  });
}
