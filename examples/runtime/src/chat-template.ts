/**
 * Renders the chat template that a model carries, by npm `@huggingface/jinja`.
 *
 * A template is a program of the model's author: it decides which roles exist and in which
 * order, and may raise an error about them.
 */
import { Template } from '@huggingface/jinja';
import { VramError } from '@vramkit/core';

/** One turn of a conversation. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

/** Renders conversations; see {@link createChatTemplate}. */
export type ChatTemplate = (
  messages: readonly ChatMessage[],
  options?: ChatTemplateOptions,
) => string;

/** Options of {@link ChatTemplate}. */
export interface ChatTemplateOptions {
  /** Ends with the beginning of the assistant's turn. Default: true. */
  readonly addGenerationPrompt?: boolean;
}

/**
 * Compiles `text`, the template of the model `file`.
 * @throws VramError `unsupported` where it cannot be parsed. The result throws
 * `invalid-argument` where the template refuses the messages.
 */
export function createChatTemplate(
  file: string,
  text: string,
  tokens: { readonly bos: string | undefined; readonly eos: string | undefined },
): ChatTemplate {
  let template: Template;
  try {
    template = new Template(text);
  } catch (cause) {
    throw new VramError('unsupported', `${file}: the chat template cannot be parsed`, {
      cause,
      context: { file },
    });
  }
  return (messages, options = {}) => {
    try {
      return template.render({
        messages: messages.map(({ role, content }) => ({ role, content })),
        add_generation_prompt: options.addGenerationPrompt ?? true,
        bos_token: tokens.bos ?? '',
        eos_token: tokens.eos ?? '',
      });
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const roles = messages.map(({ role }) => role);
      const message = `${file}: the chat template refuses the roles ${roles.join(', ')}: ${reason}`;
      throw new VramError('invalid-argument', message, { cause, context: { file, roles } });
    }
  };
}
