//! One zygote: a process that has loaded a function's code and runs nothing. Told to, it forks an instance, which shares
//! all that was loaded as long as neither side writes to it.
//!
//! It forks twice and waits for the first: so the instance becomes a child of this process, as any other, and what the
//! zygote does later, its end included, does not touch it. One is forked ahead, and waits to be told whose it is.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::Duration,
};

use bus::{Name, outcome::Start};
use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    time,
};

use crate::{
    conversation::Conversation,
    dialogue::Dialogue,
    engine::{self, Made, NoStart},
    ground::{Ground, NoLaunch},
    orphans::{Home, MARK},
    process::{self, Started},
    version::Version,
};

/// A fork takes a few milliseconds; on a machine that is out of breath some more.
const FORK: Duration = Duration::from_secs(5);
/// Bytes that one forked ahead holds for itself, about.
pub(super) const SIZE: u64 = 2 << 20;

pub(super) struct Zygote {
    conversation: Conversation,
    control: UnixStream,
    /// Forked ahead.
    spare: Option<Started>,
}

impl Zygote {
    pub(super) fn new(conversation: Conversation, control: UnixStream) -> Self {
        Self { conversation, control, spare: None }
    }

    /// An instance. When this is dropped in between, nothing may be asked of the zygote again.
    pub(super) async fn instance(
        &mut self,
        ground: &Ground,
        function: &Name,
        version: &Version,
    ) -> Result<Made, NoStart> {
        let python = ground.python(version.pin).await.map_err(NoLaunch::from)?;
        // one that is gone, or whose zygote is, is not what it was
        let is_gone = |spare: &Started| spare.process.group().is_gone() || self.conversation.group().is_gone();
        let mut started = match self.spare.take().filter(|spare| !is_gone(spare)) {
            Some(spare) => spare,
            None => self.fork(python.path()).await?,
        };
        let env = ground.env(function, version, started.process.home(), Some(python.execution_env()))?;
        // what it has from the zygote stays as it is: all but what is private
        let private = |name: &str| ["HOME", "TMPDIR", "AWS_LAMBDA_LOG_STREAM_NAME", MARK].contains(&name);
        let env = env.into_iter().filter(|(name, _)| private(name));
        let env: serde_json::Map<_, _> = env.map(|(name, value)| (name, value.into())).collect();
        let mut frames = engine::frames(ground, &mut started)?;
        // a process that has just ended shows at the first look
        let _ = frames.tell(&serde_json::json!({ "env": env }));
        let conversation = engine::converse(ground, function, version, started, Dialogue::Frames(frames));
        Ok(Made::new(conversation, Start::Partial))
    }

    /// Forks what the next start takes, and puts it into its control group, which takes long at times.
    pub(super) async fn fork_ahead(&mut self, ground: &Ground, version: &Version) -> Result<(), NoStart> {
        if self.spare.is_none() {
            let python = ground.python(version.pin).await.map_err(NoLaunch::from)?;
            let spare = self.fork(python.path()).await?;
            spare.process.group().counts(&ground.budget, SIZE);
            if let Some(bounds) = ground.bounds(version.limits()) {
                spare.process.group().hold(bounds);
            }
            self.spare = Some(spare);
        }
        Ok(())
    }

    /// Lets the process end by itself. Not killed with all in its control group: an instance it has just forked may be in
    /// there still.
    pub(super) async fn retire(&mut self) {
        let _ = self.control.shutdown().await;
    }

    /// Forks a process, which then waits to be told its environment.
    async fn fork(&mut self, python: &Path) -> Result<Started, NoStart> {
        let own = self.conversation.process.home();
        let home = Home::new(Ground::home_in(own.parent().unwrap_or(own))?);
        self.fork_in(home).await.map_err(|source| NoStart::Process { program: python.to_owned(), source })
    }

    async fn fork_in(&mut self, home: Home) -> io::Result<Started> {
        let (requests, fd3) = pipe::pipe()?;
        let (fd4, answers) = pipe::pipe()?;
        let (fd1, stdout) = pipe::pipe()?;
        let (fd2, stderr) = pipe::pipe()?;
        let theirs =
            [fd3.into_blocking_fd()?, fd4.into_blocking_fd()?, fd1.into_blocking_fd()?, fd2.into_blocking_fd()?];
        self.send(&theirs.each_ref().map(AsFd::as_fd))?;
        drop(theirs);
        let mut said = [0; 4];
        time::timeout(FORK, self.control.read_exact(&mut said)).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let said = i32::from_le_bytes(said);
        // it says an error's number below zero
        let leader = Pid::from_raw(said.max(0)).ok_or_else(|| io::Error::from_raw_os_error(-said))?;
        let process = process::adopt(leader, &self.conversation.process, home)?;
        Ok(Started { process, stdin: None, frames: Some((requests, answers)), control: None, stdout, stderr })
    }

    fn send(&self, descriptors: &[BorrowedFd<'_>; 4]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        sendmsg(&self.control, &[IoSlice::new(b"F")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
