//! End-to-end tests against the real servers, in the order in which data flows.

mod support;

mod testbed;

mod architecture;
mod contract;
mod documents;

mod settings;

mod existing_tables;

mod charsets;
mod places;
mod snapshot_and_stream;
mod types;

mod metadata;
mod partial_json;
mod policies;
mod row_images;

mod positions;

mod author;
mod dead_letters;
mod plugins;
mod routes;
mod transform;

mod statements;

mod lifecycle;
mod tables;

mod crashes;
mod outages;

mod command_line;

mod bad_input;

mod soak;
