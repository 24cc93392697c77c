internal import OpenELMBindings

/// A run of the library that returns its events one at a time.
protocol EventSource: Sendable {
    associatedtype Event: Sendable
    func next() async throws -> Event?
    func cancel() throws
    /// True if a cancelled run has events to read: it saves its state, and its stream ends after
    /// the save.
    static var savesWhenCancelled: Bool { get }
}

extension EventSource {
    static var savesWhenCancelled: Bool { false }
}

/// The events of a run. The run starts with the first requested event, produces each event when
/// there is room for it, and ends with its last reader or the reader's task.
struct EventStream<Run: EventSource>: AsyncSequence, Sendable {
    typealias Element = Run.Event

    let start: @Sendable () throws -> Run

    func makeAsyncIterator() -> Iterator { Iterator(start: start) }

    struct Iterator: AsyncIteratorProtocol {
        let start: @Sendable () throws -> Run
        private var running: Running<Run>?

        init(start: @escaping @Sendable () throws -> Run) { self.start = start }

        mutating func next() async throws -> Run.Event? { try await next(isolation: nil) }

        mutating func next(isolation actor: isolated (any Actor)?) async throws -> Run.Event? {
            // The last events of a run that saves are read after the cancellation, too.
            if running == nil || !Run.savesWhenCancelled { try Task.checkCancellation() }
            let running = try self.running ?? Running(translated(start))
            self.running = running
            return try await running.next()
        }
    }
}

/// Cancels its run when it is released.
final class Running<Run: EventSource>: Sendable {
    let run: Run

    init(_ run: Run) { self.run = run }

    deinit { try? run.cancel() }

    /// The next event; cancelling the task cancels the run.
    func next() async throws -> Run.Event? {
        let run = self.run
        let event = try await withCancellationHandler {
            try await translated { try await run.next() }
        } onCancel: {
            try? run.cancel()
        }
        if event == nil { try Task.checkCancellation() }
        return event
    }
}

extension GenerationStream: EventSource {}
extension LoadRun: EventSource {}
extension FinetuneRun: EventSource {
    static var savesWhenCancelled: Bool { true }
}
extension ConvertRun: EventSource {}
