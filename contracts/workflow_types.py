"""The names of all workflow types in Temporal: for their definitions, and for starts and queries by name."""

# Runs of the seven patterns, and reactions to events.
SYNCHRONOUS_REQUEST = "SynchronousRequest"
ASYNCHRONOUS_QUEUE = "AsynchronousQueue"
EVENT_DRIVEN = "EventDriven"
WEBHOOK_CALLBACK = "WebhookCallback"
POLLING = "Polling"
STREAMING = "Streaming"
HYBRID = "Hybrid"
EVENT_REACTION = "EventReaction"

# What belongs to runs and events.
STREAM_SEGMENT = "StreamSegment"
INTERACTION_EVENT = "InteractionEvent"
RUN_REPLY = "RunReply"
REJECTED_EVENT = "RejectedEvent"
ORDERING_SEMAPHORE = "OrderingSemaphore"

# Webhooks.
WEBHOOK_DELIVERY = "WebhookDelivery"
WEBHOOK_UPDATES = "WebhookUpdates"
WEBHOOK_ENDPOINTS = "WebhookEndpoints"
ENDPOINT_HEALTH = "EndpointHealth"

# Entities.
CIRCUIT_BREAKER = "CircuitBreaker"
AGENT_LIMITS = "AgentLimits"
TENANT_REGISTRY = "TenantRegistry"
USAGE_LEDGER = "UsageLedger"
SUBSCRIPTION_REGISTRY = "SubscriptionRegistry"

# Operation.
TENANT_ERASURE = "TenantErasure"
PAYLOAD_CLEANUP = "PayloadCleanup"
