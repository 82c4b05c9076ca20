//! The keys of the whole file.

use std::sync::LazyLock;

use api::ApiConfig;
use bus::{
    config::{BusConfig, Key, LogConfig, Section, Shape},
    sender::Webhooks,
};
use runtimes::config::{FunctionConfig, PoolConfig, RuntimesConfig};
use triggers::config::{HttpConfig, TriggerConfig, Zone};

use super::PipelineConfig;

pub(super) static FILE: LazyLock<Section> = LazyLock::new(|| {
    let table = |section: &'static Section| Shape::Table(section);
    Section {
        doc: "The config of an fnbus node.",
        keys: vec![
            Key::new("timezone", Shape::Text("a zone"), "The zone that cron expressions are in, such as `Asia/Seoul`.")
                .default(Zone::UTC.to_string()),
            Key::new("bus", table(BusConfig::section()), BusConfig::section().doc),
            Key::new("log", table(LogConfig::section()), LogConfig::section().doc),
            Key::new("http", table(HttpConfig::section()), HttpConfig::section().doc),
            Key::new("api", table(ApiConfig::section()), ApiConfig::section().doc),
            Key::new("webhooks", table(Webhooks::section()), Webhooks::section().doc),
            Key::new("runtimes", table(RuntimesConfig::section()), RuntimesConfig::section().doc),
            Key::new("pool", table(PoolConfig::section()), PoolConfig::section().doc),
            Key::new("functions", Shape::map("NAME", table(FunctionConfig::section())), FunctionConfig::section().doc),
            Key::new("triggers", Shape::map("NAME", table(TriggerConfig::section())), TriggerConfig::section().doc),
            Key::new("pipelines", Shape::map("NAME", table(PipelineConfig::section())), PipelineConfig::section().doc),
        ],
        later: &["auth", "policies"],
    }
});
