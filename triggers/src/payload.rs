//! What `payload = …` means for each kind of trigger.

use bus::payload::Format;

use crate::config::{PayloadKey, TriggerKind};

impl PayloadKey {
    /// The format behind the word: `lambda` is what AWS gives a function for this kind of trigger.
    pub fn format(self, kind: &TriggerKind) -> Format {
        match (self, kind) {
            (Self::Lambda, TriggerKind::Http(_)) => Format::HttpV2,
            (Self::Lambda, TriggerKind::Cron(_)) => Format::Scheduled,
            (Self::Lambda, TriggerKind::File(_)) => Format::S3,
            (Self::Lambda, TriggerKind::Queue(_)) => Format::Sqs,
            (Self::Lambda, TriggerKind::Event(_)) | (Self::Body, _) => Format::Body,
            (Self::CloudEvent, _) => Format::CloudEvent,
        }
    }
}
