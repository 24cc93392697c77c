internal import OpenELMBindings

/// A run of the library that is pulled.
protocol Pulled: Sendable {
    associatedtype Event: Sendable
    func next() async throws -> Event?
    func cancel() throws
}

/// Cold events: nothing runs until the first is asked for, each is made when there is room for it,
/// and the run ends with its last reader, or with the reader's task.
struct EventStream<Run: Pulled>: AsyncSequence, Sendable {
    typealias Element = Run.Event

    let start: @Sendable () throws -> Run

    func makeAsyncIterator() -> Iterator { Iterator(start: start) }

    struct Iterator: AsyncIteratorProtocol {
        let start: @Sendable () throws -> Run
        private var running: Running<Run>?

        init(start: @escaping @Sendable () throws -> Run) { self.start = start }

        mutating func next() async throws -> Run.Event? {
            try Task.checkCancellation()
            let running = try self.running ?? Running(translated(start))
            self.running = running
            return try await running.next()
        }
    }
}

/// Ends its run when nobody holds it any more.
final class Running<Run: Pulled>: Sendable {
    let run: Run

    init(_ run: Run) { self.run = run }

    deinit { try? run.cancel() }

    /// The next event; cancelling the task ends the run.
    func next() async throws -> Run.Event? {
        let run = self.run
        let event = try await withTaskCancellationHandler {
            try await translated { try await run.next() }
        } onCancel: {
            try? run.cancel()
        }
        if event == nil { try Task.checkCancellation() }
        return event
    }
}

extension GenerationStream: Pulled {}
extension LoadRun: Pulled {}
extension FinetuneRun: Pulled {}
extension ConvertRun: Pulled {}
