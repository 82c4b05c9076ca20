//! The owner, the relay and the log's writer in a simulation: a seed decides what happens and in which order.

pub(crate) mod surroundings;

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use arc_swap::ArcSwap;

    use super::surroundings;
    use crate::{Event, ambient, catalog::Catalog, log::Log, owner::Owner};

    #[test]
    fn an_event_is_accepted_when_the_writer_has_had_its_turn() {
        surroundings::enter(1);
        let connection = Arc::new(Mutex::new(Log::in_memory()));
        let (log, mut turns) = Log::by_hand(connection.clone());
        let catalog = Arc::new(ArcSwap::from_pointee(Catalog::default()));
        let owner = Owner::new(log, "n".into(), "shop".parse().unwrap(), catalog);
        let accepted = Arc::new(Mutex::new(None));
        let answer = accepted.clone();
        ambient::spawn(async move {
            let accepting = owner.accept(Event::new("/s", "t", "1"), vec![]).await;
            *answer.lock().unwrap() = Some(accepting.map(|accepted| accepted.duplicate));
        });
        surroundings::step(0);
        assert_eq!((surroundings::ready(), turns.waiting()), (0, 1));
        turns.take(&connection.lock().unwrap(), 1);
        assert_eq!((surroundings::ready(), surroundings::until_next()), (1, None));
        surroundings::step(0);
        assert_eq!(*accepted.lock().unwrap(), Some(Ok(false)));
        surroundings::wind(Duration::from_secs(1));
        surroundings::leave();
    }
}
