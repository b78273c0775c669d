//! A conversation as the exact tokens that the model has seen, so that its KV cache can be used on.
//!
//! A template renders the whole conversation anew for every turn. Tokenizing that text again may
//! split the model's own words differently from how it wrote them, and then nothing after the first
//! difference is in the cache. So only the text that the new turn adds is tokenized, as long as the
//! rendering starts with the text of the tokens so far (a template may also rewrite old turns).

use crate::chat::{ChatError, ChatTemplate, GenerationPrompt, Message};
use crate::tokenizer::{AddSpecial, ShowSpecial, Tokenizer, TokenizerError};

/// Why a message does not become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// The template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// Messages, and the tokens of those that the model has seen.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    ids: Vec<u32>,
    /// The text of `ids`, special tokens written out.
    text: String,
    /// The text of the question that waits for an answer.
    asked: String,
}

impl Conversation {
    /// A conversation that begins with the given messages, such as a system message.
    pub fn new(messages: Vec<Message>) -> Self {
        Conversation { messages, ..Conversation::default() }
    }

    /// Adds a user's message and returns the prompt: all tokens up to the start of the answer.
    ///
    /// # Errors
    /// When the template or the tokenizer rejects it; the message is then forgotten.
    pub fn ask(
        &mut self,
        message: &str,
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ConversationError> {
        self.messages.push(Message::new("user", message));
        let prompt = self.prompt(template, tokenizer);
        if prompt.is_err() {
            self.forget_question();
        }
        prompt
    }

    fn prompt(&mut self, template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Vec<u32>, ConversationError> {
        let text = template.render(&self.messages, GenerationPrompt::Add)?;
        let (mut ids, new) = match text.strip_prefix(&self.text) {
            Some(new) => (self.ids.clone(), new),
            None => (Vec::new(), text.as_str()),
        };
        ids.extend(tokenizer.encode(new, AddSpecial::Never)?);
        self.asked = text;
        Ok(ids)
    }

    /// Takes the last question back.
    pub fn forget_question(&mut self) {
        self.messages.pop();
    }

    /// Adds the answer to the last question: the prompt that [`Conversation::ask`] gave and the
    /// tokens generated after it, a token of `stop_ids` at their end perhaps among them.
    ///
    /// # Errors
    /// When the tokenizer cannot decode the answer.
    pub fn answer(
        &mut self,
        prompt: Vec<u32>,
        generated: &[u32],
        stop_ids: &[u32],
        tokenizer: &Tokenizer,
    ) -> Result<(), TokenizerError> {
        let said = match generated.split_last() {
            Some((last, before)) if stop_ids.contains(last) => before,
            _ => generated,
        };
        let content = tokenizer.decode(said, ShowSpecial::Show)?;
        self.text = std::mem::take(&mut self.asked) + &content;
        self.ids = prompt;
        self.ids.extend_from_slice(said);
        self.messages.push(Message::new("assistant", content));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
