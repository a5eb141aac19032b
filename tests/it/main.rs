//! End-to-end tests against the real servers, in the order in which data flows.

mod support;

mod testbed;

mod architecture;
mod contract;
mod documents;
mod pitfalls;

mod sessions;
mod settings;

mod accounts;
mod existing_tables;
mod preflight;

mod charsets;
mod places;
mod snapshot_and_stream;
mod types;

mod metadata;
mod partial_json;
mod policies;
mod row_images;

mod damaged_events;
mod events;
mod failover;
mod groups;
mod positions;
mod protocol;
mod read_ahead;
mod refusals;
mod replicas;
mod transactions;

mod author;
mod crimes;
mod dead_letters;
mod languages;
mod plugins;
mod routes;
mod transform;

mod append;
mod append_plugins;
mod append_unlocked;
mod cascades;
mod definitions;
mod effects;
mod exchanges;
mod keys;
mod moments;
mod statement_format;
mod statements;
mod texts;

mod commands;
mod connections;
mod lifecycle;
mod neighbours;
mod objectives;
mod tables;

mod bystanders;
mod crashes;
mod kill_points;
mod lost_rows;
mod outages;
mod outstanding;
mod state_folder;
mod surroundings;

mod command_line;
mod files;
mod rest;

mod bad_input;
mod barriers;

mod soak;
