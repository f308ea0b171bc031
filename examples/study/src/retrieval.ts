/**
 * Questions whose answers stand in the text, asked after the cache has been cut: pass keys that are
 * put into it at several depths, and facts that it holds anyway.
 *
 * A pass key is a sentence of its own, and is found where each digit of the answer is the model's
 * first choice. A fact is a name or number in mid-sentence that the text has only once; its
 * question is the words before it, and it is found where the model prefers it to the answers of all
 * other facts. Which facts is a rule: those nearest to evenly spaced depths. Pure.
 */
import type { Tokenizer } from '@vramkit/example-runtime';

/** One question. */
export interface Question {
  readonly kind: 'passkey' | 'fact';
  /** Where in the text the answer stands, 0 to 1. */
  readonly depth: number;
  readonly text: string;
  readonly answer: string;
  /** Tokens of question and answer. */
  readonly ids: Uint32Array;
  /** Where in `ids` the answer begins. */
  readonly answerStart: number;
}

/** A text with questions. */
export interface RetrievalTask {
  /** At most the context that was asked for. */
  readonly context: Uint32Array;
  readonly questions: readonly Question[];
}

const GATES = ['north', 'east', 'south', 'west'] as const;
const FACTS = 4;
/** Words of a fact's question. */
const QUESTION_WORDS = 9;

interface Fact {
  readonly before: string;
  readonly answer: string;
  /** Index of the answer in the text. */
  readonly at: number;
}

/** Names and numbers that occur once, in mid-sentence, with the words before them. */
export function findFacts(text: string): Fact[] {
  const facts: Fact[] = [];
  for (const match of text.matchAll(/[^.!?;]+/g)) {
    const words = [...match[0].matchAll(/\S+/g)];
    words.forEach((word, index) => {
      const [answer = ''] = /^(?:[A-Z][a-z]{2,}|\d{2,})/.exec(word[0]) ?? [];
      const isOnce = answer !== '' && text.split(answer).length === 2;
      if (index < 6 || !isOnce) return;
      const at = match.index + word.index;
      const from = match.index + (words[Math.max(0, index - QUESTION_WORDS)]?.index ?? 0);
      facts.push({ before: text.slice(from, at).trimEnd(), answer, at });
    });
  }
  return facts;
}

/** The facts nearest to `count` evenly spaced depths, each once. */
function spread(facts: readonly Fact[], length: number, count: number): Fact[] {
  const chosen: Fact[] = [];
  for (let i = 0; i < count; i++) {
    const goal = ((i + 0.5) / count) * length;
    const left = facts.filter((fact) => !chosen.some(({ answer }) => answer === fact.answer));
    left.sort((a, b) => Math.abs(a.at - goal) - Math.abs(b.at - goal));
    chosen.push(...left.slice(0, 1));
  }
  return chosen;
}

/** The longest beginning of `text` that ends a word and has at most `tokens` tokens. */
function cut(text: string, tokenizer: Tokenizer, tokens: number): string {
  let end = Math.min(text.length, tokens * 8);
  while (tokenizer.encode(text.slice(0, end)).length > tokens) {
    const { length } = tokenizer.encode(text.slice(0, end));
    end = text.lastIndexOf(' ', Math.min(end - 1, Math.floor((end * tokens) / length)));
  }
  return text.slice(0, end);
}

/** Puts each sentence behind the end of a sentence near its depth. */
function insertAll(text: string, sentences: readonly string[]): string {
  return sentences.reduceRight((result, sentence, index) => {
    const goal = Math.floor(((index + 0.5) / sentences.length) * text.length);
    const end = text.indexOf('. ', goal);
    const at = end < 0 ? goal : end + 1;
    return `${result.slice(0, at)} ${sentence}${result.slice(at)}`;
  }, text);
}

/**
 * The questions of a text.
 * @param options `seed`: which pass keys.
 */
export function buildRetrieval(
  text: string,
  tokenizer: Tokenizer,
  options: { readonly contextTokens: number; readonly seed: number },
): RetrievalTask {
  const keys = GATES.map((gate, index) => ({
    stem: `The pass key of the ${gate} gate is`,
    // Five digits that a model cannot guess; primes far apart make them all different.
    key: String(10_000 + ((options.seed * 7919 + index * 23_173) % 90_000)),
  }));
  const sentences = keys.map(({ stem, key }) => `${stem} ${key}.`);
  // A few tokens in reserve: pieces put together can be more than the sum of their tokens.
  const insertedTokens = tokenizer.encode(sentences.join(' ')).length + 2 * sentences.length;
  const body = cut(text, tokenizer, options.contextTokens - insertedTokens);
  const whole = insertAll(body, sentences);
  const question = (of: Pick<Question, 'kind' | 'text' | 'answer' | 'depth'>): Question => {
    const asked = tokenizer.encode(`\n\n${of.text}`, { addSpecial: false });
    const ids = tokenizer.encode(`\n\n${of.text} ${of.answer}`, { addSpecial: false });
    let answerStart = 0;
    while (answerStart < asked.length && asked[answerStart] === ids[answerStart]) answerStart++;
    return { ...of, ids, answerStart };
  };
  const passkeys = keys.map(({ stem, key }) => {
    const depth = whole.indexOf(stem) / whole.length;
    return question({ kind: 'passkey', text: stem, answer: key, depth });
  });
  const facts = spread(findFacts(body), body.length, FACTS).map(({ before, answer, at }) =>
    question({ kind: 'fact', text: before, answer, depth: at / body.length }),
  );
  return { context: tokenizer.encode(whole), questions: [...passkeys, ...facts] };
}
