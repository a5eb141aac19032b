//! Refusals name the command that was given, the state, and the way out.

use super::super::diagram_tests::states;
use super::*;

fn commands() -> Vec<Command> {
    vec![
        Command::Start,
        Command::Pause,
        Command::Resume,
        Command::Resync {
            table: None,
            snapshot: serde_json::Map::new(),
        },
        Command::AddTables {
            entries: Vec::new(),
        },
        Command::RemoveTables { tables: Vec::new() },
        Command::Exclude { list: None },
    ]
}

#[test]
fn a_refusal_names_the_command_the_state_and_the_way_out() {
    let mut refused = 0;
    for state in states() {
        for command in commands() {
            let event = command.event(&state).expect("a command of the lifecycle");
            let internal = event.name();
            let Err(refusal) = state.clone().apply(event) else {
                continue;
            };
            let told = command.explain(refusal, &state);
            assert_eq!(told.kind(), ErrorKind::IllegalCommand);
            for part in [format!("`{}`", command.verb()), state.name().to_owned()] {
                assert!(told.message().contains(&part), "no {part}: {told:?}");
            }
            assert!(
                !told.message().contains(&format!("`{internal}`")),
                "{told:?}"
            );
            assert!(told.hint().is_some_and(|hint| hint.contains("pipewright")));
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_completed_pipe_that_is_started_is_pointed_to_resync() {
    let event = Command::Start.event(&PipeState::Completed);
    let refusal = PipeState::Completed
        .apply(event.expect("start"))
        .expect_err("nothing is left to do");
    let told = Command::Start.explain(refusal, &PipeState::Completed);
    assert!(told.message().contains("Completed cannot take `start`"));
    assert!(told.hint().is_some_and(|hint| hint.contains("resync")));
}

#[test]
fn a_refusal_of_another_kind_is_left_as_it_is() {
    let other = Error::new(ErrorKind::IllegalCommand, "no table would be left");
    let command = Command::RemoveTables { tables: Vec::new() };
    let told = command.explain(other, &PipeState::Running);
    assert_eq!(told.message(), "no table would be left");
}

#[test]
fn starting_what_is_at_work_or_being_set_up_changes_nothing() {
    for state in [
        PipeState::Provisioning,
        PipeState::Setup,
        PipeState::Snapshot,
        PipeState::Resync,
        PipeState::Running,
        PipeState::Degraded,
    ] {
        let event = Command::Start.event(&state).expect("start");
        assert_eq!(state.clone().apply(event).expect("no effect"), state);
    }
}
