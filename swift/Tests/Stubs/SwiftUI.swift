// swift-format-ignore-file
// A stub of the SwiftUI names used by the chat app, to type-check it without SwiftUI
// (`swift/check-docs.sh`). Declarations with the shape of Apple's, without behaviour.
import Foundation
import Observation
import UniformTypeIdentifiers

@MainActor @preconcurrency public protocol View {
    associatedtype Body: View
    @ViewBuilder var body: Body { get }
}
@MainActor @preconcurrency public protocol Scene {
    associatedtype Body: Scene
    @SceneBuilder var body: Body { get }
}
@MainActor @preconcurrency public protocol App {
    associatedtype Body: Scene
    @SceneBuilder var body: Body { get }
    init()
}
extension App { public static func main() {} }
public struct BackgroundTask<Request, Response>: Sendable {
    public static func urlSession(_ identifier: String) -> Self
    where Request == Void, Response == Void { Self() }
}
extension Scene {
    public nonisolated func backgroundTask<D: Sendable, R: Sendable>(
        _ task: BackgroundTask<D, R>, action: @escaping @Sendable (D) async -> R
    ) -> some Scene { SceneWithTask<Self>() }
}
public struct SceneWithTask<Content: Scene>: Scene {
    nonisolated init() {}
    public var body: Never { return stub() }
}
extension Never: View, Scene {
    public typealias Body = Never
    public var body: Never { return stub() }
}
extension Optional: Primitive, View where Wrapped: View {}

/// Views without a body.
@MainActor @preconcurrency public protocol Primitive: View where Body == Never {}
extension Primitive { public var body: Never { return stub() } }

func stub() -> Never { fatalError("a stub") }

/// A view with any contents.
public struct Some: Primitive, ToolbarContent {
}
public protocol ToolbarContent {}

@resultBuilder public enum SceneBuilder {
    public static func buildBlock<S: Scene>(_ scene: S) -> S { scene }
}
@resultBuilder public enum ToolbarContentBuilder {
    public static func buildBlock<each C: ToolbarContent>(_ content: repeat each C) -> Some { Some() }
}
@resultBuilder public enum ViewBuilder {
    public static func buildBlock<each V: View>(_ view: repeat each V) -> Some { Some() }
    public static func buildIf<V: View>(_ view: V?) -> V? { view }
    public static func buildEither<V: View>(first: V) -> Some { Some() }
    public static func buildEither<V: View>(second: V) -> Some { Some() }
}

@propertyWrapper public struct State<Value> {
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public var wrappedValue: Value {
        get { stub() }
        nonmutating set { stub() }
    }
    public var projectedValue: Binding<Value> { stub() }
}
extension State where Value: ExpressibleByNilLiteral {
    public init() { stub() }
}
@propertyWrapper @dynamicMemberLookup public struct Binding<Value> {
    public init(get: @escaping () -> Value, set: @escaping (Value) -> Void) {}
    public var wrappedValue: Value {
        get { stub() }
        nonmutating set { stub() }
    }
    public var projectedValue: Binding<Value> { self }
    public subscript<Subject>(dynamicMember keyPath: WritableKeyPath<Value, Subject>) -> Binding<Subject> {
        stub()
    }
}
@propertyWrapper @dynamicMemberLookup public struct Bindable<Value> {
    public init(wrappedValue: Value) { self.wrappedValue = wrappedValue }
    public var wrappedValue: Value
    public var projectedValue: Bindable<Value> { self }
}
extension Bindable where Value: AnyObject {
    public subscript<Subject>(
        dynamicMember keyPath: ReferenceWritableKeyPath<Value, Subject>
    ) -> Binding<Subject> { stub() }
}

/// A key of a string catalogue. Only strings are interpolated in the app, so that each placeholder
/// is `%@`, as `check_strings.py` expects.
public struct LocalizedStringKey: ExpressibleByStringInterpolation, Equatable {
    public init(_ value: String) {}
    public init(stringLiteral value: String) {}
    public init(stringInterpolation: StringInterpolation) {}
    public struct StringInterpolation: StringInterpolationProtocol {
        public init(literalCapacity: Int, interpolationCount: Int) {}
        public mutating func appendLiteral(_ literal: String) {}
        public mutating func appendInterpolation(_ string: String) {}
    }
}

public struct WindowGroup<Content: View>: Scene {
    public init(@ViewBuilder content: () -> Content) {}
    public var body: Never { return stub() }
}
public struct NavigationSplitView<Side: View, Detail: View>: Primitive {
    public init(@ViewBuilder sidebar: () -> Side, @ViewBuilder detail: () -> Detail) {}
}
public struct NavigationStack<Root: View>: Primitive {
    public init(@ViewBuilder root: () -> Root) {}
}
public struct List<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct Form<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct Section<Parent: View, Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content, @ViewBuilder header: () -> Parent) {}
}
extension Section where Parent == Text {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) {}
}
public struct ForEach<Data: RandomAccessCollection, ID: Hashable, Content: View>: Primitive {
    public init(
        _ data: Data, id: KeyPath<Data.Element, ID>,
        @ViewBuilder content: @escaping (Data.Element) -> Content
    ) {}
}
extension ForEach where Data.Element: Identifiable, ID == Data.Element.ID {
    public init(_ data: Data, @ViewBuilder content: @escaping (Data.Element) -> Content) {}
}
public struct HStack<Content: View>: Primitive {
    public init(spacing: CGFloat? = nil, @ViewBuilder content: () -> Content) {}
}
public struct VStack<Content: View>: Primitive {
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil,
        @ViewBuilder content: () -> Content
    ) {}
}
public struct LazyVStack<Content: View>: Primitive {
    public init(
        alignment: HorizontalAlignment = .center, spacing: CGFloat? = nil,
        @ViewBuilder content: () -> Content
    ) {}
}
public struct ScrollView<Content: View>: Primitive {
    public init(@ViewBuilder content: () -> Content) {}
}
public struct ScrollViewProxy {
    public func scrollTo<ID: Hashable>(_ id: ID, anchor: UnitPoint? = nil) {}
}
public struct ScrollViewReader<Content: View>: Primitive {
    public init(@ViewBuilder content: @escaping (ScrollViewProxy) -> Content) {}
}
public struct EmptyView: Primitive {
    public init() {}
}
public struct Spacer: Primitive {
    public init(minLength: CGFloat? = nil) {}
}
public struct Image: Primitive {
    public init(systemName: String) {}
}
public struct Text: Primitive {
    public init(_ key: LocalizedStringKey) {}
    @_disfavoredOverload public init<S: StringProtocol>(_ content: S) {}
    public init(verbatim content: String) {}
    public init(_ date: Date, style: DateStyle) {}
    public struct DateStyle: Sendable { public static let (date, time) = (Self(), Self()) }
}
public struct Label<Title: View, Icon: View>: Primitive {
    public init(@ViewBuilder title: () -> Title, @ViewBuilder icon: () -> Icon) {}
}
extension Label where Title == Text, Icon == Image {
    public init(_ titleKey: LocalizedStringKey, systemImage name: String) {}
    @_disfavoredOverload public init<S: StringProtocol>(_ title: S, systemImage name: String) {}
}
public struct ButtonRole: Equatable, Sendable {
    public static let (destructive, cancel) = (ButtonRole(), ButtonRole())
}
public struct Button<Content: View>: Primitive {
    public init(action: @escaping @MainActor () -> Void, @ViewBuilder label: () -> Content) {}
}
extension Button where Content == Text {
    public init(_ titleKey: LocalizedStringKey, action: @escaping @MainActor () -> Void) {}
    public init(
        _ titleKey: LocalizedStringKey, role: ButtonRole?, action: @escaping @MainActor () -> Void
    ) {}
}
extension Button where Content == Label<Text, Image> {
    public init(
        _ titleKey: LocalizedStringKey, systemImage: String, action: @escaping @MainActor () -> Void
    ) {}
    public init(
        _ titleKey: LocalizedStringKey, systemImage: String, role: ButtonRole?,
        action: @escaping @MainActor () -> Void
    ) {}
}
public struct Menu<Content: View>: Primitive {
    public init(
        _ titleKey: LocalizedStringKey, systemImage: String, @ViewBuilder content: () -> Content
    ) {}
}
public struct TextField: Primitive {
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>) {}
    public init(_ titleKey: LocalizedStringKey, text: Binding<String>, axis: Axis) {}
}
public struct Slider<Content: View>: Primitive {
    public init<V: BinaryFloatingPoint>(
        value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1,
        @ViewBuilder label: () -> Content, onEditingChanged: @escaping (Bool) -> Void = { _ in }
    ) where V.Stride: BinaryFloatingPoint {}
}
public struct Stepper<Content: View>: Primitive {
    public init<V: Strideable>(
        value: Binding<V>, in bounds: ClosedRange<V>, step: V.Stride = 1,
        @ViewBuilder label: () -> Content, onEditingChanged: @escaping (Bool) -> Void = { _ in }
    ) {}
}
public struct Picker<Selection: Hashable, Content: View>: Primitive {
    public init(
        _ titleKey: LocalizedStringKey, selection: Binding<Selection>,
        @ViewBuilder content: () -> Content
    ) {}
}
public struct LabeledContent<Content: View>: Primitive {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: () -> Content) {}
}
public struct DisclosureGroup<Content: View>: Primitive {
    public init(_ titleKey: LocalizedStringKey, @ViewBuilder content: @escaping () -> Content) {}
}
public struct ShareLink: Primitive {
    public init(item: String, subject: Text? = nil, message: Text? = nil) {}
}
public struct ProgressView: Primitive {
    public init(_ titleKey: LocalizedStringKey) {}
    public init<V: BinaryFloatingPoint>(
        _ titleKey: LocalizedStringKey, value: V?, total: V = 1
    ) {}
}
public struct Gauge<Content: View>: Primitive {
    public init<V: BinaryFloatingPoint>(
        value: V, in bounds: ClosedRange<V> = 0...1, @ViewBuilder label: () -> Content
    ) where V.Stride: BinaryFloatingPoint {}
}
public struct ToolbarItem<Content: View>: ToolbarContent {
    public init(
        placement: ToolbarItemPlacement = .automatic, @ViewBuilder content: () -> Content
    ) {}
}
public struct ToolbarItemPlacement {
    public static var automatic: Self { stub() }
    public static var confirmationAction: Self { stub() }
}

public enum Axis { case horizontal, vertical }
public struct UnitPoint: Sendable { public static let bottom = UnitPoint() }
public enum VerticalEdge { case top, bottom }
public enum HorizontalEdge { case leading, trailing }
public struct HorizontalAlignment: Sendable { public static let (leading, trailing, center) = (Self(), Self(), Self()) }
public struct Alignment: Sendable { public static let (leading, trailing, center) = (Self(), Self(), Self()) }
public struct Edge {
    public struct Set: Sendable { public static let (all, horizontal, vertical) = (Self(), Self(), Self()) }
}
public struct Font: Sendable { public static let (headline, caption) = (Self(), Self()) }
public protocol ShapeStyle {}
public struct Color: ShapeStyle, Primitive, Sendable {
    nonisolated public static let (accentColor, secondary) = (Self(), Self())
    nonisolated init() {}
    nonisolated public func opacity(_ opacity: Double) -> Color { self }
}
public struct HierarchicalShapeStyle: ShapeStyle {}
extension ShapeStyle where Self == HierarchicalShapeStyle {
    public static var secondary: Self { stub() }
}
extension ShapeStyle where Self == Color { public static var red: Self { stub() } }
public protocol Shape {}
public struct RoundedRectangle: Shape {}
extension Shape where Self == RoundedRectangle {
    public static func rect(cornerRadius: CGFloat) -> Self { stub() }
}
public protocol LabelStyle {}
public struct IconOnlyLabelStyle: LabelStyle {}
extension LabelStyle where Self == IconOnlyLabelStyle { public static var iconOnly: Self { stub() } }
public protocol PrimitiveButtonStyle {}
public struct PlainButtonStyle: PrimitiveButtonStyle {}
extension PrimitiveButtonStyle where Self == PlainButtonStyle { public static var plain: Self { stub() } }
public struct BorderlessButtonStyle: PrimitiveButtonStyle {}
extension PrimitiveButtonStyle where Self == BorderlessButtonStyle {
    public static var borderless: Self { stub() }
}
public protocol TextSelectability {}
public struct EnabledTextSelectability: TextSelectability {}
extension TextSelectability where Self == EnabledTextSelectability {
    public static var enabled: Self { stub() }
}
public struct AccessibilityTraits: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let isSelected = AccessibilityTraits(rawValue: 1)
}
public struct AccessibilityChildBehavior: Sendable {
    public static let (contain, combine, ignore) = (Self(), Self(), Self())
}

@MainActor extension View {
    public func padding(_ length: CGFloat? = nil) -> some View { Some() }
    public func padding(_ edges: Edge.Set, _ length: CGFloat? = nil) -> some View { Some() }
    public func frame(
        minWidth: CGFloat? = nil, idealWidth: CGFloat? = nil, maxWidth: CGFloat? = nil,
        minHeight: CGFloat? = nil, idealHeight: CGFloat? = nil, maxHeight: CGFloat? = nil,
        alignment: Alignment = .center
    ) -> some View { Some() }
    public func font(_ font: Font?) -> some View { Some() }
    public func lineLimit(_ number: Int?) -> some View { Some() }
    public func foregroundStyle<S: ShapeStyle>(_ style: S) -> some View { Some() }
    public func background<S: ShapeStyle, T: Shape>(_ style: S, in shape: T) -> some View { Some() }
    public func labelStyle<S: LabelStyle>(_ style: S) -> some View { Some() }
    public func buttonStyle<S: PrimitiveButtonStyle>(_ style: S) -> some View { Some() }
    public func textSelection<S: TextSelectability>(_ selectability: S) -> some View { Some() }
    public func disabled(_ disabled: Bool) -> some View { Some() }
    public func id<ID: Hashable>(_ id: ID) -> some View { Some() }
    public func tag<V: Hashable>(_ tag: V) -> some View { Some() }
    public func navigationTitle(_ titleKey: LocalizedStringKey) -> some View { Some() }
    @_disfavoredOverload public func navigationTitle<S: StringProtocol>(_ title: S) -> some View {
        Some()
    }
    public func listRowBackground<V: View>(_ view: V?) -> some View { Some() }
    public func toolbar<C: ToolbarContent>(@ToolbarContentBuilder content: () -> C) -> some View {
        Some()
    }
    public func safeAreaInset<V: View>(
        edge: VerticalEdge, @ViewBuilder content: () -> V
    ) -> some View { Some() }
    public func contextMenu<M: View>(@ViewBuilder menuItems: () -> M) -> some View { Some() }
    public func swipeActions<T: View>(
        edge: HorizontalEdge = .trailing, allowsFullSwipe: Bool = true,
        @ViewBuilder content: () -> T
    ) -> some View { Some() }
    public func sheet<Item: Identifiable, Content: View>(
        item: Binding<Item?>, onDismiss: (() -> Void)? = nil,
        @ViewBuilder content: @escaping (Item) -> Content
    ) -> some View { Some() }
    public func alert<A: View>(
        _ titleKey: LocalizedStringKey, isPresented: Binding<Bool>, @ViewBuilder actions: () -> A
    ) -> some View { Some() }
    public func onSubmit(_ action: @escaping () -> Void) -> some View { Some() }
    public func onChange<V: Equatable>(
        of value: V, _ action: @escaping (_ old: V, _ new: V) -> Void
    ) -> some View { Some() }
    public func task(_ action: @escaping @Sendable @MainActor () async -> Void) -> some View {
        Some()
    }
    public func fileImporter(
        isPresented: Binding<Bool>, allowedContentTypes: [UTType],
        onCompletion: @escaping (Result<URL, any Error>) -> Void
    ) -> some View { Some() }
    public func accessibilityLabel(_ labelKey: LocalizedStringKey) -> some View { Some() }
    public func accessibilityHint(_ hintKey: LocalizedStringKey) -> some View { Some() }
    public func accessibilityAddTraits(_ traits: AccessibilityTraits) -> some View { Some() }
    public func accessibilityElement(children: AccessibilityChildBehavior = .ignore) -> some View {
        Some()
    }
}
