//! What must hold after every step, and at the end.

use rdcc::coordinator::scheduler::Scheduler;

use super::world::World;

/// Checks what must always hold.
pub fn check_step(world: &World) -> Result<(), String> {
    if let Some(broken) = world.broken.first() {
        return Err(broken.clone());
    }
    for worker in &world.workers {
        let (running, slots) = (worker.running.len(), worker.slots);
        if running > slots as usize {
            return Err(format!("{} runs {running} jobs in {slots} slots", worker.name));
        }
    }
    world.scheduler.as_ref().map_or(Ok(()), Scheduler::audit)
}

/// Checks what must hold when all jobs have ended and the farm had time to say so.
pub fn check_end(world: &World) -> Result<(), String> {
    let view = world.scheduler.as_ref().ok_or("the coordinator is down")?.view();
    if view.queued > 0 || !view.jobs.is_empty() {
        return Err(format!("{} wants and grants {:?} were left", view.queued, view.jobs));
    }
    for worker in &view.workers {
        let told = ["fault", "golden"].iter().any(|word| worker.note.contains(word));
        if worker.busy > 0 || !worker.note.is_empty() && !told {
            return Err(format!("a slot leaked: {worker:?}"));
        }
    }
    if view.workers.len() != world.workers.len() || view.agents.len() != world.agents.len() {
        return Err(format!("someone did not come back: {view:?}"));
    }
    for agent in &world.agents {
        let ended = agent.ran + agent.local;
        if ended != world.config.jobs_per_agent {
            return Err(format!(
                "{ended} jobs ended, {} were begun",
                world.config.jobs_per_agent
            ));
        }
    }
    Ok(())
}
