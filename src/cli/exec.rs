//! `p2p-worker exec`: evaluate here, in the sandbox, with no board. How an owner tries a profile.

use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Status,
    common::{
        Output, PlaceArgs, SandboxArgs, Source, cancel_on_interrupt, conclude, future_of_code, print, print_reached,
    },
};
use crate::{
    runner::{Ended, Reason, Workbench},
    sandbox::Denials,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    sandbox: SandboxArgs,
    #[command(flatten)]
    source: Source,
    /// Say what the profile denied, and which lines of a profile would allow it
    #[arg(long)]
    explain: bool,
    /// Write the result, an RDS of a FutureResult, here
    #[arg(short, long, value_name = "RESULT.rds")]
    output: Option<PathBuf>,
    /// Replace the file of the result if it is there already
    #[arg(long, requires = "output")]
    force: bool,
}

/// How an explained run differs from others.
const EXPLAINED: &str = "explained run: p2p-worker answers denied system calls in the kernel's place, with the same error, \
                         and looks at every path before the kernel does; slower, and not for code of strangers";

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let place = args.place.resolve()?;
    let output = args.output.map(|path| Output::new(path, args.force)).transpose()?;
    let workbench = args.sandbox.workbench(&place).await?;
    workbench.warn_of_shortfalls();
    let cancel = CancellationToken::new();
    cancel_on_interrupt(cancel.clone())?;
    let (id, future) = args.source.read(&workbench, &cancel).await?;
    let mut nothing = Denials::default();
    let outcome = if args.explain {
        eprintln!("{EXPLAINED}");
        let (name, idle) = future_of_code("invisible()", &workbench, &cancel).await?;
        nothing = workbench.explain(&idle, &name, cancel.clone()).await?.denials.unwrap_or_default();
        workbench.explain(&future, &id, cancel.clone()).await?
    } else {
        // Nobody looks at progress here; the queue's end is dropped, and so is what would go into it.
        let (events, _) = mpsc::channel(1);
        workbench.evaluate(0, &future, &id, u64::MAX, cancel.clone(), events).await?
    };
    // What the task's programs printed past R (`system()`): R's own output is in the result.
    print(outcome.text.for_log().as_bytes(), std::io::stderr())?;
    print_reached(&workbench.provenance_after(&outcome.usage.reached))?;
    if args.explain {
        explain(&workbench, outcome.denials.as_ref(), &nothing)?;
    }
    match &outcome.ended {
        Ended::Refused(reason) => Err(Failure::new(Status::Sandbox, reason.to_string())),
        Ended::Stopped(reason @ Reason::Cancelled) => Err(Failure::new(Status::Stopped, reason.to_string())),
        _ => conclude(&workbench, &id, &outcome.result, output.as_ref(), &cancel).await,
    }
}

/// Says what was denied, to stderr: it is about the run and no part of its output.
fn explain(workbench: &Workbench, denials: Option<&Denials>, nothing: &Denials) -> Result<(), Failure> {
    let text = match denials.map(|denials| workbench.advise(denials, nothing)) {
        None => "nothing was watched: the task did not start\n".to_owned(),
        Some(text) if text.is_empty() => {
            format!("The profile {} denied nothing in this run.\n", workbench.provenance().profile)
        }
        Some(text) => text,
    };
    print(text.as_bytes(), std::io::stderr())
}
