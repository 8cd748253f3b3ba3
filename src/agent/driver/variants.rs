//! Jobs on variants of their toolchain: which may go there, and what they are made into.

use std::sync::Arc;

use super::{Driver, Step, out_of_turn};
use crate::agent::fallback::Reason;
use crate::agent::farm::Farm;
use crate::agent::flow::Event;
use crate::agent::job::Job;
use crate::agent::preparation::{Order, Trouble};
use crate::compile::{VariantNames, profile_words, variant_exactness};
use crate::includes::source_tree::SourceTree;
use crate::job::Variants;
use crate::toolchains::definition::{Certify, Language};
use crate::toolchains::profile::{Question, RunAs};

impl<F: Farm> Driver<F> {
    /// Decides whether a job is to be placed on variants of its toolchain, too.
    pub(super) fn variants_for(&self, job: &mut Job<F::Place>, allowed: Variants) -> Variants {
        let Some(order) = job.order.clone() else {
            return Variants::Never;
        };
        let variants = order.toolchain.definition.variants();
        if variants.len() < 2 {
            return Variants::Never;
        }
        let names = match variants.iter().any(|variant| variant.certify == Certify::SameCode) {
            true => VariantNames::Differ,
            false => VariantNames::Same,
        };
        if let Err(why) = variant_exactness(&order.unit.command, names) {
            job.own_only(why);
            return Variants::Never;
        }
        match self.profiles.is_unlike(order.toolchain.id, || question(&order)) {
            true => Variants::Never,
            false => allowed,
        }
    }

    /// Makes the job one for the variant that it was placed on.
    pub(super) async fn adapt(&self, job: &mut Job<F::Place>) -> Step {
        let adapted = self.adapted(job).await;
        if adapted.is_err() {
            // Given back unused: the job asks for another.
            job.place = None;
        }
        adapted
    }

    async fn adapted(&self, job: &mut Job<F::Place>) -> Step {
        let order = job.order.clone().ok_or_else(out_of_turn)?;
        let prepared = job.prepared.clone().ok_or_else(out_of_turn)?;
        let place = job.place.as_ref().ok_or_else(out_of_turn)?;
        let stand_in = F::stand_in(place).copied().ok_or_else(out_of_turn)?;
        let (definition, own) = (&order.toolchain.definition, order.toolchain.captured.manifest.host());
        if stand_in.level > definition.asked_between(own, stand_in.host) {
            let note = "its objects are signed otherwise, and the toolchain file here does not allow that";
            return Err(Trouble::new(Reason::VariantUnprepared, note));
        }
        let closure = prepared.closure.clone().ok_or_else(out_of_turn)?;
        let facts = self.closures.facts(&order.unit).await?;
        let question = question(&order);
        let profile = self.profiles.ask(&order.unit, &question, &prepared.spec.env).await;
        let run_as = RunAs {
            toolchain: stand_in.toolchain,
            profile: profile.map_err(|error| Trouble::new(Reason::VariantUnprepared, error))?,
            question,
        };
        let (maker, epoch) = (self.maker.clone(), self.tree.begin());
        let make = move || order.for_variant(&maker, epoch, closure, &facts, run_as);
        let adapted = self.tasks.blocking(make).await?;
        job.adapted = Some(Arc::new(adapted));
        Ok(Event::Adapted)
    }

    /// Remembers under which flags a variant is another compiler.
    pub(super) fn note_variant(&self, job: &Job<F::Place>, reason: Reason) {
        if let (Reason::VariantUnlike, Some(order)) = (reason, &job.order) {
            self.profiles.note_unlike(order.toolchain.id, &question(order));
        }
    }
}

fn question(order: &Order) -> Question {
    let command = &order.unit.command;
    Question {
        driver: match command.driver {
            crate::compile::Driver::C => Language::C,
            crate::compile::Driver::Cxx => Language::Cxx,
        },
        language: command.language.name().to_owned(),
        words: profile_words(command),
    }
}
