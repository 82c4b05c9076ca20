//! `fnbus up`: run the bus.

use std::{ffi::OsStr, process::ExitCode, time::Duration};

use bus::config::NatsUrl;
use clap::{builder::TypedValueParser, error::ErrorKind};
use tracing_subscriber::EnvFilter;

use crate::{
    args::Global,
    failure::Failure,
    up::{Options, serve, warden},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Join this NATS server instead of starting one, instead of `[bus] nats`
    #[arg(long, value_name = "URL", value_parser = NatsUrlParser)]
    nats: Option<NatsUrl>,
    /// Keep what is deployed: edits of functions' code change nothing
    #[arg(long)]
    no_watch: bool,
    /// How long running work may take to finish when ending
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s", value_name = "TIME")]
    grace: Duration,
}

impl Up {
    pub(crate) fn run(self, global: Global) -> Result<ExitCode, Failure> {
        let line = warden::split().map_err(Failure::Split)?;
        let filter = EnvFilter::try_from_env("FNBUS_LOG").unwrap_or_else(|_| EnvFilter::new("info,async_nats=warn"));
        let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        // Who read stderr may be gone. To say that there would panic, in whichever task had something to say.
        let format = format.log_internal_errors(false);
        format.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
        #[cfg(debug_assertions)]
        if let Ok(text) = std::env::var("FNBUS_FAILPOINTS") {
            bus::failpoint::arm(&text)?;
        }
        let told = line.listen().map_err(Failure::Split)?;
        bus::descriptors::raise();
        let mut config = global.load()?;
        if self.nats.is_some() {
            config.bus.nats = self.nats;
            config.bus.nats_port = None;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
        let options = Options { watch: !self.no_watch, grace: self.grace };
        let served = runtime.block_on(serve(global, config, options, told));
        // Whatever still waits for a file or a disk is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        served?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What clap says of a value that does not parse has the value in it, and so the password.
#[derive(Clone)]
struct NatsUrlParser;

impl TypedValueParser for NatsUrlParser {
    type Value = NatsUrl;

    fn parse_ref(&self, command: &clap::Command, _: Option<&clap::Arg>, value: &OsStr) -> Result<NatsUrl, clap::Error> {
        let url = value.to_string_lossy().parse::<NatsUrl>();
        url.map_err(|error| command.clone().error(ErrorKind::ValueValidation, format!("--nats: {error}")))
    }
}
